// How much better than the best founder, with the interval; who won; and what to type next.

const quoted = (word) => (/^[\w./~-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

function verdict(h, winner) {
  const on = `${h.examples ? `${whole(h.examples)} ` : ""}${h.split} examples`;
  if (h.winner.id === h.founder.id) return `The ${winner} is the best founder itself, ${cut(h.founder.name, 60)}: it scores ${score(h.winner_score)} on ${on}.`;
  const scores = `The ${winner} scores ${score(h.winner_score)} on ${on}; the best founder, ${cut(h.founder.name, 60)}, scores ${score(h.founder_score)}.`;
  if (!known(h.low) || !known(h.high)) return scores;
  const sure = Math.round((h.confidence ?? 0.95) * 100);
  const interval = `The ${sure} % interval of the difference, ${signed(h.low)} to ${signed(h.high)},`;
  if (h.low > 0) return `${scores} ${interval} lies above zero: the gain is more than luck of the draw.`;
  if (h.high < 0) return `${scores} ${interval} lies below zero: the ${winner} is worse.`;
  return `${scores} ${interval} includes zero: these examples can't tell the two apart.`;
}

function intervalChart(h, width, c) {
  const wide = known(h.low) ? h.high - h.low : 0;
  // Room at both ends for the numbers there.
  const range = scale([h.low, h.high, h.difference].filter(known).flatMap((x) => [x - 0.2 * wide, x + 0.2 * wide]), width < 400 ? 3 : 5, [0]);
  const ends = [["low end", h.low], ["difference", h.difference], ["high end", h.high]].filter(([, value]) => known(value));
  const label = (position, bold) => ({
    show: true,
    position,
    distance: 9,
    color: bold ? c.text : c.muted,
    fontSize: bold ? 14 : 12,
    fontWeight: bold ? 700 : 400,
    formatter: ({ value }) => signed(value[0]),
  });
  return {
    height: 104,
    label: `Difference from the best founder: ${signed(h.difference)}${known(h.low) ? `, interval ${signed(h.low)} to ${signed(h.high)}` : ""}.`,
    option: {
      grid: { left: 50, right: 50, top: 30, bottom: 30 },
      xAxis: valueAxis(c, { ...range, format: (value) => (Math.abs(value) < 1e-9 ? "best founder" : range.format(value)) }),
      yAxis: { type: "value", min: -1, max: 1, show: false },
      series: [
        {
          type: "line",
          silent: true,
          showSymbol: false,
          lineStyle: { width: 8, cap: "round", color: c.blue, opacity: 0.45 },
          data: known(h.low) ? [[h.low, 0], [h.high, 0]] : [],
          markLine: {
            silent: true,
            symbol: "none",
            lineStyle: { color: c.muted, type: "dashed", width: 1.5 },
            label: { show: false },
            data: [{ xAxis: 0 }],
          },
        },
        {
          type: "scatter",
          symbolSize: ([, , middle]) => (middle ? 18 : 12),
          itemStyle: { color: c.blue, borderColor: c.surface, borderWidth: 2, opacity: 1 },
          data: ends.map(([name, value]) => ({
            value: [value, 0, name === "difference" ? 1 : 0],
            symbol: name === "difference" ? "diamond" : "circle",
            label: label({ "low end": "left", difference: "top", "high end": "right" }[name], name === "difference"),
          })),
        },
      ],
    },
    stops: ends.map(([name, value], at) => ({ series: 1, index: at, row: 0, col: at, say: `${name} ${signed(value)}` })),
    tip: ({ dataIndex }) => tip(ends[dataIndex][0], [["against the best founder", signed(ends[dataIndex][1])]]),
    table: {
      caption: "Difference from the best founder",
      columns: ["", "#value"],
      rows: ends.map(([name, value]) => [name, signed(value)]),
    },
  };
}

function command(text) {
  const words = text.split(" ").map((word, at) => [at ? " " : "", word.length < 24 ? el("span", { class: "word" }, word) : word]);
  const code = el("code", {}, words.flat());
  const button = el("button", { type: "button", "aria-label": `Copy: ${text}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      announce("Copied.");
    } catch {
      getSelection().selectAllChildren(code);
      announce("Selected: copy it with Control C.");
    }
  });
  return el("div", { class: "command" }, code, button);
}

function headlineSection() {
  const section = new Section("headline");
  const figure = el("p", { class: "figure" });
  const plot = el("div");
  const sentence = el("p", { class: "sentence" });
  const note = el("p", { class: "muted" });
  const next = el("div", { class: "next" });
  const both = el("div", { class: "verdict" }, figure, plot);
  section.body.append(both, sentence, note, next);
  const chart = new Chart(plot);

  return ({ headline: h, run }) => {
    section.say("");
    section.finding.hidden = true;
    both.hidden = !h;
    const same = h?.winner.id === h?.founder.id;
    plot.hidden = same;
    const dir = quoted(run?.run_dir ?? "RUN_DIR");
    const commands = {
      starting: LIVE ? [] : [`evo watch ${dir}`],
      running: LIVE ? [`evo status ${dir}`] : [`evo watch ${dir}`, `evo status ${dir}`],
      stopped: [`evo resume ${dir}`, `evo export ${dir} best --out DIR`],
      finished: [`evo export ${dir} best --out DIR`],
    }[run?.state] ?? [`evo status ${dir}`];
    const word = run?.state === "finished" ? "winner" : "best so far";
    const winner = el("div", {}, el("h3", {}, `The ${word}`));
    next.hidden = !h && !commands.length;
    next.replaceChildren(el("div", {}, el("h3", {}, "What to type next"), commands.map(command)), h ? winner : "");
    if (!h) {
      sentence.textContent = run?.state === "starting" ? "The run is starting: the models are being loaded." : "There is no result yet: a result needs a scored individual and a scored founder.";
      note.textContent = "";
      return;
    }
    const direction = h.difference < 0 ? "worse than" : h.difference > 0 ? "better than" : "against";
    figure.replaceChildren(
      same ? (run?.state === "finished" ? "no gain" : "no gain yet") : signed(h.difference),
      el("small", {}, `${direction} the best founder, ${cut(h.founder.name, 40)}, on ${h.split}`),
    );
    sentence.textContent = verdict(h, word);
    note.textContent = h.note ?? "";
    winner.append(
      el(
        "p",
        { class: "clamp", title: h.winner.description },
        el("code", { title: h.winner.id }, short(h.winner.id)),
        h.winner.description ? ` = ${plainSum(h.winner.description)}` : "",
      ),
    );
    if (!same) chart.show((width, c) => intervalChart(h, width, c));
  };
}
