// How much of each founder is in each layer group of the winner: a heat map with the numbers printed in it.

function sharesChart(shares, width, c) {
  const { groups, founders, share, weight } = shares;
  const narrow = width < 500;
  // Layers run across where they fit, and down where they don't; a single group is one row of founders.
  const down = groups.length > 2 ? narrow && groups.length > 7 : !narrow;
  const [across, along] = down ? [founders, groups] : [groups, founders];
  const left = widest(along, narrow ? 92 : 160, c) + 12;
  const cell = Math.max(30, Math.min(120, (width - left - 8) / across.length));
  const slanted = widest(across, 400, c, 11) > cell - 6;
  const top = slanted ? Math.min(96, widest(across, 110, c, 11) * 0.72 + 16) : 26;
  const rowTall = along.length > 20 ? 24 : 30;
  const largest = Math.max(1e-9, ...share.flat().filter(known));
  const cells = groups.flatMap((_, g) =>
    founders.map((_, f) => ({ g, f, x: down ? f : g, y: along.length - 1 - (down ? g : f), share: share[g][f], weight: weight?.[g]?.[f] })),
  ).filter((one) => known(one.share));
  const shown = (one) => (one.share < 0.005 ? "" : `${one.weight < 0 ? "−" : ""}${Math.round(one.share * 100)}`);
  const plot = cell * across.length;
  return {
    height: top + rowTall * along.length + 10,
    width: left + plot + 8,
    label: `Heat map of founder shares, ${plural(groups.length, "group")} by ${plural(founders.length, "founder")}. ${sharesFinding(shares)}`,
    option: {
      grid: { left, top, width: plot, height: rowTall * along.length },
      xAxis: categoryAxis(c, across, null, { position: "top", axisLabel: { interval: 0, color: c.text, fontSize: 11, rotate: slanted ? 45 : 0, width: slanted ? 108 : cell, overflow: "truncate" } }),
      yAxis: categoryAxis(c, along.toReversed(), left - 12),
      series: [
        {
          type: "heatmap",
          data: cells.map((one) => {
            const { fill, ink: text } = ramp(one.share / largest, c.dark);
            return {
              value: [one.x, one.y, one.share],
              cell: one,
              itemStyle: { color: fill, borderColor: c.bg, borderWidth: 1.5 },
              label: { show: true, color: text, fontSize: 11, formatter: () => shown(one) },
            };
          }),
          emphasis: { itemStyle: { borderColor: c.text, borderWidth: 2 } },
        },
      ],
    },
    stops: cells
      .map((one, index) => ({
        series: 0, index, row: along.length - 1 - one.y, col: one.x,
        say: `${founders[one.f]} in ${groups[one.g]}: share ${percent(one.share)}, weight ${score(one.weight)}`,
      }))
      .sort((a, b) => a.row - b.row || a.col - b.col),
    tip: ({ data }) => tip(`${founders[data.cell.f]} in ${groups[data.cell.g]}`, [["share", percent(data.cell.share)], ["weight", score(data.cell.weight)]]),
    table: {
      caption: "Share of each founder, by layer group",
      columns: ["group", ...founders.map((name) => `#${name}`)],
      rows: groups.map((group, g) => [group, ...founders.map((_, f) => percent(share[g][f]))]),
    },
  };
}

function sharesFinding({ founders, share }) {
  const mean = founders.map((_, f) => share.reduce((sum, row) => sum + (row[f] ?? 0), 0) / share.length);
  const order = founders.map((_, f) => f).sort((a, b) => mean[b] - mean[a]);
  const named = order.slice(0, 3).filter((f) => mean[f] > 0.005).map((f) => `${founders[f]} (${percent(mean[f])})`);
  if (!named.length) return "No founder has a share.";
  const over = share.length > 1 ? ", on average over the groups" : "";
  return `The largest shares of the winner are those of ${named.join(", ").replace(/, ([^,]*)$/, " and $1")}${over}.`;
}

function sharesSection() {
  const section = new Section("shares");
  const key = el("div", { class: "legend" });
  const note = el("p", { class: "muted" });
  section.body.append(key);
  const chart = new Chart(section.body);
  section.body.append(note);
  return ({ shares, path }) => {
    const there = shares?.groups.length && shares.founders.length;
    section.show(there || !path); // a path through founders says itself what is from whom
    if (!there) return section.empty("There is no winner with shares of founders yet.");
    section.say(sharesFinding(shares));
    note.textContent = shares.note ?? "";
    chart.show((width, c) => {
      const strip = el("span", { class: "ramp", "aria-hidden": "true" });
      strip.style.background = `linear-gradient(90deg, ${[0, 0.25, 0.5, 0.75, 1].map((at) => ramp(at, c.dark).fill).join(", ")})`;
      const signs = shares.weight?.flat().some((value) => value < 0) ? " − marks a founder that is subtracted." : "";
      key.replaceChildren(el("span", {}, "0"), strip, el("span", {}, percent(Math.max(...shares.share.flat().filter(known)))), el("span", {}, `Printed: share of the weight, in %.${signs}`));
      return sharesChart(shares, width, c);
    });
  };
}
