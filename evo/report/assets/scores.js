// Scores by task: a dot with its error bar for each model, one panel a task; and the table of all of them.

const SCORE_ROWS = 16;
const SCORE_PANELS = 7;
const GAP = 22; // px between panels
const KINDS = {
  winner: ["the winner", "diamond", "blue", "◆"],
  founder: ["founder", "circle", "orange", "●"],
  other: ["merge or other baseline", "rect", "purple", "■"],
};
const kindOf = (row) => (row.kind in KINDS ? row.kind : "other");

function scoreOn(row, task, split) {
  if (task !== null) return row.tasks?.[task]?.[split] ?? {};
  const only = Object.values(row.tasks ?? {});
  const error = split === "test" ? row.test_se : only.length === 1 ? only[0][split]?.se : null;
  return { score: row[split], se: error };
}

// The winner, all other baselines and the best founders, at most SCORE_ROWS, the best first.
function scoreRows(scores, split) {
  const sorted = scores.filter((row) => known(row[split])).sort((a, b) => b[split] - a[split]);
  const rank = (row) => (row.kind === "winner" ? 0 : row.kind === "founder" ? 2 : 1);
  const kept = sorted.toSorted((a, b) => rank(a) - rank(b)).slice(0, SCORE_ROWS);
  return sorted.filter((row) => kept.includes(row));
}

function scoresChart(scores, about, split, width, c) {
  const rows = scoreRows(scores, split);
  const tasks = about.map(({ name }) => name);
  const told = tasks.filter((task) => rows.some((row) => known(scoreOn(row, task, split).score)));
  const panels = (told.length === 1 && tasks.length === 1 ? told : [null, ...told]).slice(0, SCORE_PANELS);
  const names = rows.map((row) => row.name);
  const label = widest(names, width < 500 ? 104 : 170, c) + 12;
  const across = Math.max(1, Math.min(panels.length, Math.floor((width - label) / 190)));
  const each = (width - label - GAP * across) / across;
  const tall = rows.length * 24 + 8;
  const down = tall + 66;
  const on = (panel, row) => scoreOn(row, panel, split);
  const ends = (one) => (known(one.se) ? [one.score - 1.96 * one.se, one.score + 1.96 * one.se] : [one.score]);
  // Panels are compared where they say the same thing: metrics differ in what their numbers mean.
  const metric = (panel) => about.find(({ name }) => name === panel)?.metric ?? (about.every((one) => one.weight > 0 && one.metric === about[0].metric) ? about[0]?.metric : null);
  const rangeOf = (panel) => scale(panels.filter((one) => metric(one) === metric(panel)).flatMap((one) => rows.flatMap((row) => ends(on(one, row)))), each < 240 ? 3 : 5);
  const place = panels.map((_, at) => ({
    left: label + (at % across) * (each + GAP),
    top: 34 + Math.floor(at / across) * down,
    width: each,
    height: tall,
  }));
  const lower = (panel) => about.some(({ name, weight }) => name === panel && weight < 0);
  const title = (panel) => (panel === null ? "all tasks" : lower(panel) ? `${cut(panel, Math.max(6, Math.floor(each / 8) - 17))}, lower is better` : panel);
  const y = (row) => rows.length - 1 - rows.indexOf(row);
  const series = panels.flatMap((panel, at) => {
    const shown = rows.filter((row) => known(on(panel, row).score));
    return [
      {
        type: "custom",
        silent: true,
        xAxisIndex: at,
        yAxisIndex: at,
        z: 2,
        data: shown.filter((row) => known(on(panel, row).se)).map((row) => [...ends(on(panel, row)), y(row)]),
        encode: { x: [0, 1], y: 2 },
        renderItem: (_, api) => {
          const [x1, height] = api.coord([api.value(0), api.value(2)]);
          const [x2] = api.coord([api.value(1), api.value(2)]);
          const style = { stroke: c.muted, lineWidth: 2, lineCap: "round" };
          return { type: "line", shape: { x1, x2, y1: height, y2: height }, style };
        },
      },
      {
        type: "scatter",
        xAxisIndex: at,
        yAxisIndex: at,
        z: 3,
        data: shown.map((row) => ({
          value: [on(panel, row).score, y(row)],
          row,
          symbol: KINDS[kindOf(row)][1],
          symbolSize: row.kind === "winner" ? 15 : 10,
          itemStyle: { color: c[KINDS[kindOf(row)][2]], borderColor: c.text, borderWidth: 1, opacity: 1 },
        })),
        emphasis: { scale: 1.5, itemStyle: { borderWidth: 2 } },
      },
    ];
  });
  return {
    height: Math.ceil(panels.length / across) * down + 2,
    label: `Dot plot of ${split} scores with 95 % error bars, ${plural(rows.length, "model")}. ${scoresFinding(scores, split)}`,
    option: {
      grid: place,
      title: panels.map((panel, at) => ({
        text: cut(title(panel), Math.floor(each / 8)),
        left: place[at].left,
        top: place[at].top - 26,
        padding: 0,
        textStyle: { fontSize: 13, fontWeight: 600, color: c.text, fontFamily: c.font },
      })),
      xAxis: panels.map(rangeOf).map((range, at) => valueAxis(c, range, { gridIndex: at, axisLabel: { color: c.muted, fontSize: 12, formatter: range.format, hideOverlap: true, alignMinLabel: "left", alignMaxLabel: "right" } })),
      yAxis: panels.map((_, at) =>
        categoryAxis(c, names.toReversed(), label - 12, {
          gridIndex: at,
          axisLabel: {
            show: at % across === 0,
            color: c.text,
            fontSize: 12,
            interval: 0,
            width: label - 12,
            overflow: "truncate",
            formatter: (name, index) => (rows[rows.length - 1 - index].kind === "winner" ? `{winner|${name.replace(/[{}|]/g, " ")}}` : name.replace(/[{}|]/g, " ")),
            rich: { winner: { fontWeight: 700, color: c.text } },
          },
          splitLine: { show: true, lineStyle: { color: c.grid } },
        }),
      ),
      series,
    },
    stops: series.flatMap(({ type, data }, index) =>
      type === "scatter"
        ? data.map(({ row }, at) => ({
            series: index,
            index: at,
            row: rows.indexOf(row) + Math.floor((index - 1) / 2 / across) * rows.length,
            col: ((index - 1) / 2) % across,
            say: `${row.name}, ${title(panels[(index - 1) / 2])}: ${scoreWithError(on(panels[(index - 1) / 2], row).score, on(panels[(index - 1) / 2], row).se)}`,
          }))
        : [],
    ).sort((a, b) => a.row - b.row || a.col - b.col),
    tip: ({ data, seriesIndex }) => {
      const one = on(panels[(seriesIndex - 1) / 2], data.row);
      const kind = KINDS[data.row.kind] ? KINDS[data.row.kind][0] : data.row.kind.replaceAll("_", " ");
      return tip(data.row.name, [["task", title(panels[(seriesIndex - 1) / 2])], [split, score(one.score)], ["standard error", score(one.se)], ["kind", kind]]);
    },
  };
}

function scoresTable(scores, tasks, split) {
  const columns = ["model", "kind", "#dev", "#select", "#test ± s.e.", ...(tasks.length > 1 ? tasks.map((task) => `#${task}, ${split}`) : [])];
  const sorted = scores.toSorted((a, b) => (b[split] ?? -Infinity) - (a[split] ?? -Infinity));
  const rows = sorted.map((row) => [
    row.name,
    row.kind.replaceAll("_", " "),
    score(row.dev),
    score(row.select),
    scoreWithError(row.test, row.test_se),
    ...(tasks.length > 1 ? tasks.map((task) => scoreWithError(scoreOn(row, task, split).score, scoreOn(row, task, split).se)) : []),
  ]);
  return table("Scores by model and split", columns, rows, (at) => (sorted[at].kind === "winner" ? "winner" : null));
}

function scoresFinding(scores, split) {
  const sorted = scores.filter((row) => known(row[split])).sort((a, b) => b[split] - a[split]);
  const winner = sorted.find((row) => row.kind === "winner");
  const next = sorted.find((row) => row.kind !== "winner");
  if (!winner || !next) return `${plural(sorted.length, "model")} scored on ${split}.`;
  const place = sorted.indexOf(winner) + 1;
  const where = place === 1 ? "comes first" : `is number ${place}`;
  return `On ${split} the winner (${score(winner[split])}) ${where} of ${sorted.length}; the best of the others is ${cut(next.name, 60)} (${score(next[split])}).`;
}

function scoresSection() {
  const section = new Section("scores");
  const bar = el("div", { class: "bar" });
  const key = el("div");
  const omitted = el("p", { class: "muted after" });
  section.body.append(bar, key);
  const chart = new Chart(section.body);
  const details = el("div");
  chart.details.replaceWith(details); // the table of all scores is always open here
  section.body.append(omitted);
  let splits = [];
  let split = null;
  let facts = null;

  function draw() {
    const tasks = facts.run.tasks.map(({ name }) => name);
    const shown = scoreRows(facts.scores, split).length;
    const hidden = facts.scores.filter((row) => known(row[split])).length - shown;
    const lost = tasks.length > 1 ? Math.max(0, tasks.length + 1 - SCORE_PANELS) : 0;
    omitted.textContent = [
      "Error bars are 95 % intervals.",
      hidden > 0 ? `${plural(hidden, "more founder")} in the table only.` : "",
      lost > 0 ? `${plural(lost, "more task")} in the table only.` : "",
    ].join(" ").trim();
    section.say(scoresFinding(facts.scores, split));
    details.replaceChildren(scoresTable(facts.scores, tasks, split));
    chart.show((width, c) => {
      key.replaceChildren(legend(Object.entries(KINDS).filter(([kind]) => facts.scores.some((row) => kindOf(row) === kind)).map(([, kind]) => kind).map(([label, , colour, mark]) => ({ label, colour: c[colour], mark }))));
      return scoresChart(facts.scores, facts.run.tasks, split, width, c);
    });
  }

  return ({ scores, run }) => {
    const there = ["test", "select", "dev"].filter((name) => scores?.some((row) => known(row[name])));
    if (!there.length) return section.empty("Nothing has been scored yet.");
    facts = { scores, run };
    if (there.join() !== splits.join()) {
      splits = there;
      split = splits[0];
      bar.replaceChildren(choice("Split", splits.map((name) => [name, name]), (value) => ((split = value), draw())).node);
      bar.hidden = splits.length < 2;
    }
    draw();
  };
}
