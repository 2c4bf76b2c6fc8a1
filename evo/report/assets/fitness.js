// Best so far, mean and spread over evaluations, generations or seconds, with the baselines as labelled lines.

const LABELLED = 6;

// Where labels go so that none lies on another: down from the top, then up again from the bottom.
function spread(wanted, gap, top, bottom) {
  const order = wanted.map((_, at) => at).sort((a, b) => wanted[a] - wanted[b]);
  const placed = [...wanted];
  let edge = top - gap;
  for (const at of order) edge = placed[at] = Math.max(placed[at], edge + gap);
  edge = bottom + gap;
  for (const at of order.reverse()) edge = placed[at] = Math.min(placed[at], edge - gap);
  return placed;
}

// Of all baselines those worth a line: the best of each kind first, then the best of the rest.
function chosenBaselines(baselines) {
  const sorted = baselines.filter(({ value }) => known(value)).sort((a, b) => b.value - a.value);
  const first = sorted.filter((one, at) => sorted.findIndex(({ kind }) => kind === one.kind) === at);
  const rest = sorted.filter((one) => !first.includes(one) && one.kind !== "founder");
  return [...first, ...rest].slice(0, LABELLED).sort((a, b) => b.value - a.value);
}

function fitnessChart(f, axis, width, c) {
  const xs = f[axis];
  const lines = chosenBaselines(f.baselines);
  const last = Math.max(1e-9, ...xs.filter(known));
  const ticks = width < 500 ? 4 : 8;
  const range = scale([...f.best, ...f.mean, ...f.low, ...f.high, ...lines.map(({ value }) => value)]);
  const narrow = width < 500;
  const names = lines.map(({ name, value }) => `${cut(name, narrow ? 9 : 22)} ${score(value)}`);
  const grid = { left: 46, right: widest(names, narrow ? 104 : 190, c, 11) + 14, top: 12, bottom: 44 };
  const height = narrow ? 300 : 380;
  const tall = height - grid.top - grid.bottom;
  const wanted = lines.map(({ value }) => ((range.max - value) / (range.max - range.min)) * tall);
  const placed = spread(wanted, 15, 4, tall);
  const curves = axis === "evaluations" ? lines.filter(({ curve }) => curve).map(({ curve }) => curve) : [];
  const dotted = { color: c.neutral, type: "dotted", width: 1.5 };
  // Shapes that no pointer meets: a series of their own points would catch the tooltip of the curves above them.
  const shape = (name, z, renderItem) => ({ name, type: "custom", silent: true, clip: true, z, data: [[xs[0], f.best.find(known)]], renderItem });
  const points = (ys) => ys.map((y, at) => [xs[at], y]);
  const banded = xs.map((_, at) => at).filter((at) => known(f.low[at]) && known(f.high[at]));
  const line = (name, ys, colour, type, stepped) => ({
    name,
    type: "line",
    step: stepped && "end",
    showSymbol: ys.length < 3,
    symbolSize: 8,
    connectNulls: true,
    lineStyle: { color: colour, width: stepped ? 3 : 2, type },
    itemStyle: { color: colour },
    emphasis: { lineStyle: { width: stepped ? 3 : 2 } },
    data: points(ys),
  });
  const told = (at) => [
    ["best so far", score(f.best[at])],
    ["mean", score(f.mean[at])],
    ["spread", known(f.low[at]) ? `${score(f.low[at])} to ${score(f.high[at])}` : NOTHING],
    ["evaluations", whole(f.evaluations[at])],
    ["generation", whole(f.generation[at])],
    ["time", duration(f.seconds[at])],
  ];
  const stop = (row, name, ys) =>
    ys.map((y, at) => ({ series: row, index: at, row, col: at, y, say: `${name} ${score(y)} at ${whole(f.evaluations[at])} evaluations, generation ${f.generation[at]}` }));
  return {
    height,
    label: `Line chart of fitness on dev. ${fitnessFinding(f)}`,
    option: {
      grid,
      xAxis: axis === "seconds" ? countAxis(c, last, ticks, "time", duration) : countAxis(c, last, ticks, axis),
      yAxis: valueAxis(c, range),
      series: [
        {
          ...line("best so far", f.best, c.blue, "solid", true),
          z: 4,
          markLine: {
            silent: true,
            symbol: "none",
            precision: 10, // else ECharts draws the line at two decimals
            data: lines.map(({ value }, at) => ({
              yAxis: value,
              lineStyle: { ...dotted, opacity: curves.includes(lines[at].curve) ? 0 : 0.9 },
              label: { position: "end", opacity: 1, distance: 8, color: c.muted, fontSize: 11, formatter: () => names[at], offset: [0, placed[at] - wanted[at]] },
            })),
          },
        },
        { ...line("mean", f.mean, c.vermillion, "dashed", false), z: 3 },
        shape("spread", 1, (_, api) => ({
          type: "polygon",
          shape: { points: [...banded.map((at) => api.coord([xs[at], f.low[at]])), ...banded.toReversed().map((at) => api.coord([xs[at], f.high[at]]))] },
          style: { fill: c.vermillion, opacity: 0.16 },
        })),
        ...curves.map(({ evaluations, best }) =>
          shape("baseline", 2, (_, api) => ({
            type: "polyline",
            shape: { points: best.flatMap((y, at) => (known(y) ? [...(at && known(best[at - 1]) ? [api.coord([evaluations[at], best[at - 1]])] : []), api.coord([evaluations[at], y])] : [])) },
            style: { stroke: c.neutral, fill: "none", lineWidth: 1.5, lineDash: [2, 3] },
          })),
        ),
      ],
    },
    tooltip: { trigger: "axis", axisPointer: { type: "line", lineStyle: { color: c.muted }, label: { show: false } } },
    stops: [...stop(0, "best so far", f.best), ...stop(1, "mean", f.mean)].filter(({ y }) => known(y)),
    tip: (about) => {
      const at = [about].flat().find(({ seriesIndex }) => seriesIndex < 2)?.dataIndex;
      return known(at) ? tip(`Generation ${f.generation[at]}`, told(at)) : "";
    },
    table: {
      caption: "Fitness over time, and the baselines",
      columns: ["", "#evaluations", "#seconds", "#best so far", "#mean", "#low", "#high"],
      rows: [
        ...f.baselines.map(({ name, value }) => [`baseline ${name}`, "", "", score(value), "", "", ""]),
        ...xs.map((_, at) => [
          `generation ${f.generation[at]}`, whole(f.evaluations[at]), known(f.seconds[at]) ? f.seconds[at].toFixed(1) : NOTHING,
          ...[f.best, f.mean, f.low, f.high].map((ys) => score(ys[at])),
        ]),
      ],
    },
  };
}

function fitnessFinding(f) {
  const best = f.best.filter(known);
  const last = f.evaluations.at(-1);
  const found = best.findIndex((value) => value === best.at(-1));
  const when = f.evaluations[f.best.indexOf(best[found])];
  if (best[0] === best.at(-1)) return `The best on dev is ${score(best[0])} since the first of ${plural(last, "evaluation")}.`;
  return `The best on dev rose from ${score(best[0])} to ${score(best.at(-1))}; it was reached after ${whole(when)} of ${plural(last, "evaluation")}.`;
}

function fitnessSection() {
  const section = new Section("fitness");
  let axis = "evaluations";
  let facts = null;
  const along = choice("Along", [["evaluations", "evaluations"], ["generation", "generations"], ["seconds", "time"]], (value) => {
    axis = value;
    draw();
  });
  const key = el("div");
  section.body.append(el("div", { class: "bar" }, along.node), key);
  const chart = new Chart(section.body);

  function draw() {
    chart.show((width, c) => {
      key.replaceChildren(
        legend([
          { label: "best so far", colour: c.blue, line: "solid" },
          { label: "mean of the generation", colour: c.vermillion, line: "dashed" },
          { label: facts.spread || "spread", colour: c.vermillion, line: "band" },
          ...(facts.baselines.length ? [{ label: "baselines", colour: c.neutral, line: "dotted" }] : []),
        ]),
      );
      return fitnessChart(facts, axis, width, c);
    });
  }

  return ({ fitness }) => {
    if (!fitness?.best?.some(known)) return section.empty("No individual has been scored yet, so there is no curve.");
    facts = fitness;
    section.say(fitnessFinding(fitness));
    draw();
  };
}
