// How different the population stayed, and which operators' children survived and beat their parents.

function diversityChart(d, width, c) {
  const lines = [
    ["disagreement", d.disagreement, c.blue, "solid"],
    ["distinct members", d.distinct, c.vermillion, "dashed"],
  ];
  return {
    height: 240,
    label: `Line chart of diversity. ${diversityFinding(d)}`,
    option: {
      grid: { left: 46, right: 16, top: 12, bottom: 44 },
      xAxis: countAxis(c, Math.max(1, d.generation.at(-1)), width < 500 ? 5 : 10, "generation"),
      yAxis: valueAxis(c, { min: 0, max: 1, interval: 0.25, format: percent }),
      series: lines.map(([name, ys, colour, type]) => ({
        name,
        type: "line",
        showSymbol: ys.length < 3,
        symbolSize: 8,
        connectNulls: true,
        lineStyle: { color: colour, type, width: 2.5 },
        itemStyle: { color: colour },
        emphasis: { lineStyle: { width: 2.5 } },
        data: ys.map((y, at) => [d.generation[at], y]),
      })),
    },
    tooltip: { trigger: "axis", axisPointer: { type: "line", lineStyle: { color: c.muted }, label: { show: false } } },
    stops: lines.flatMap(([name, ys], row) =>
      ys.map((y, at) => ({ series: row, index: at, row, col: at, y, say: `${name} ${percent(y)} in generation ${d.generation[at]}` })),
    ).filter(({ y }) => known(y)),
    tip: (about) => {
      const at = [about].flat()[0]?.dataIndex;
      return known(at) ? tip(`Generation ${d.generation[at]}`, lines.map(([name, ys]) => [name, percent(ys[at])])) : "";
    },
    table: {
      caption: "Diversity by generation",
      columns: ["generation", "#disagreement", "#distinct members"],
      rows: d.generation.map((generation, at) => [String(generation), percent(d.disagreement[at]), percent(d.distinct[at])]),
    },
  };
}

function diversityFinding(d) {
  const there = d.disagreement.filter(known);
  if (!there.length) return `${plural(d.generation.length, "generation")}.`;
  const start = there.length > 1 ? `; at the start it was ${percent(there[0])}` : "";
  return `Two members of the last population differ on ${percent(there.at(-1))} of the dev examples${start}.`;
}

function diversitySection() {
  const section = new Section("diversity");
  const key = el("div");
  section.body.append(key);
  const chart = new Chart(section.body);
  return ({ diversity: d }) => {
    if (!d?.generation?.length) return section.empty("No generation is complete yet, so there is no population to compare.");
    section.say(diversityFinding(d));
    chart.show((width, c) => {
      key.replaceChildren(legend([
        { label: "disagreement: dev examples on which two members differ", colour: c.blue, line: "solid" },
        { label: "distinct: members whose answers are nobody else's", colour: c.vermillion, line: "dashed" },
      ]));
      return diversityChart(d, width, c);
    });
  };
}

function operatorsChart(operators, width, c) {
  const names = operators.map((one) => one.operator).toReversed();
  const left = widest(names, width < 500 ? 110 : 180, c) + 14;
  const beat = (one) => (one.children ? one.improved / one.children : null);
  const bars = [
    ["survived", (one) => one.survival, c.blue, null],
    ["beat its parents", beat, c.orange, { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [2, 4], rotation: -Math.PI / 4, color: "rgb(0 0 0 / 35%)" }],
  ];
  return {
    height: operators.length * 46 + 40,
    label: `Bar chart of operators. ${operatorsFinding(operators)}`,
    option: {
      grid: { left, right: 56, top: 4, bottom: 30 },
      xAxis: valueAxis(c, { min: 0, max: 1, interval: 0.25, format: percent }),
      yAxis: categoryAxis(c, names, left - 14),
      series: bars.map(([name, value, colour, decal], at) => ({
        name,
        type: "bar",
        barWidth: 14,
        barGap: "15%",
        itemStyle: { color: colour, decal, borderRadius: [0, 3, 3, 0] },
        label: { show: true, position: "right", color: c.muted, fontSize: 11, formatter: ({ value: shown }) => percent(shown) },
        data: operators.toReversed().map(value),
      })).toReversed(),
    },
    stops: operators.flatMap((one, row) =>
      bars.map(([name, value], col) => ({ series: 1 - col, index: operators.length - 1 - row, row, col, say: `${one.operator}: ${percent(value(one))} ${name}, of ${plural(one.children, "child", "children")}` })),
    ),
    tip: ({ dataIndex }) => {
      const one = operators[operators.length - 1 - dataIndex];
      return tip(one.operator, [["children", whole(one.children)], ["survived", `${whole(one.survived)} (${percent(one.survival)})`], ["beat its parents", `${whole(one.improved)} (${percent(beat(one))})`], ["best child", score(one.best)]]);
    },
    table: null,
  };
}

function operatorsFinding(operators) {
  const tried = operators.filter((one) => one.children);
  if (!tried.length) return "No operator has made a child yet.";
  const best = tried.toSorted((a, b) => (b.best ?? -Infinity) - (a.best ?? -Infinity))[0];
  return `${plural(tried.length, "operator")} made ${plural(tried.reduce((sum, one) => sum + one.children, 0), "child", "children")}; the best one (${score(best.best)} on dev) is by ${best.operator}.`;
}

function operatorsSection() {
  const section = new Section("operators");
  const key = el("div");
  section.body.append(key);
  const chart = new Chart(section.body);
  const rows = el("div");
  chart.details.replaceWith(rows);
  return ({ operators }) => {
    if (!operators?.length) return section.empty("No operator has made a child yet.");
    section.say(operatorsFinding(operators));
    chart.show((width, c) => {
      key.replaceChildren(legend([{ label: "survived", colour: c.blue, mark: "■" }, { label: "beat its parents (hatched)", colour: c.orange, mark: "▨" }]));
      return operatorsChart(operators, width, c);
    });
    const unjudged = operators.some((one) => one.survived < Math.round(one.survival * one.children));
    rows.replaceChildren(
      table("Operators", ["operator", "#children", "#failed", "#survived", "#beat its parents", "#best"], operators.map((one) => [one.operator, whole(one.children), whole(one.failed), `${whole(one.survived)} (${percent(one.survival)})`, whole(one.improved), score(one.best)])),
      el("p", { class: "muted after" }, `Survived: in the population at the end of its generation.${unjudged ? " The budget ended within the last generation: its children don't count in the percentage." : ""}`),
    );
  };
}
