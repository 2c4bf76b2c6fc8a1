// A data-flow path as a route: models are lanes, layers are positions in them, arrows go from step to step.
// Going back to an earlier layer starts a new track, and a lane is as many tracks wide as pass through it, so that no step
// lies on another.

function tracks(steps) {
  let pass = 0;
  const passes = steps.map((step, at) => {
    if (at && step.layer <= steps[at - 1].layer) pass += 1;
    return pass;
  });
  const ofModel = (model) => [...new Set(passes.filter((_, at) => steps[at].model === model))];
  return steps.map((step, at) => {
    const own = ofModel(step.model);
    return { number: own.indexOf(passes[at]), of: own.length };
  });
}

function pathChart(path, width, c) {
  const { models, steps } = path;
  const narrow = width < 500;
  const layers = Math.max(path.layers ?? 0, ...steps.map((step) => step.layer + 1), 1);
  const track = tracks(steps);
  const count = Math.max(1, ...track.map((one) => one.of));
  const colour = (model) => c[["blue", "vermillion", "green", "purple", "orange", "sky"][model % 6]];
  const offset = (at) => ((track[at].number - (track[at].of - 1) / 2) / track[at].of) * 0.8;
  const names = models.map((model) => model.name);
  const left = narrow ? 50 : widest(names, 170, c) + 14;
  // px from layer to layer, and layers from the outermost ones to the embedding and the head.
  const apart = narrow ? 26 : Math.max(12, (width - left - 16 - 180) / Math.max(1, layers - 1));
  const away = Math.max(44, Math.min(90, apart)) / apart;
  const margin = away + (narrow ? 16 : 34) / apart;
  const put = (layer, lane) => (narrow ? [lane, layer] : [layer, lane]);
  const nodes = [
    { name: "embedding", at: put(-away, path.embed), model: path.embed, end: true },
    ...steps.map((step, at) => ({ name: `step ${at}`, at: put(step.layer, step.model + offset(at)), model: step.model, step, order: at })),
    { name: "head", at: put(layers - 1 + away, path.head), model: path.head, end: true },
  ];
  const lost = (at) => at > 0 && steps[at - 1].scale === steps[at].scale && apart < 38;
  const laneWide = Math.max(58, Math.min(120, count * 28 + 22));
  const lanes = { type: "value", min: -0.5, max: models.length - 0.5, interval: 1, inverse: !narrow, axisLine: { show: false }, axisTick: { show: false }, splitLine: { show: false }, axisLabel: { show: false }, splitArea: { show: models.length > 1, areaStyle: { color: [c.sunken, "transparent"] } } };
  const depth = {
    type: "value", min: -margin, max: layers - 1 + margin, interval: 1, inverse: narrow,
    axisLine: { show: false }, axisTick: { show: false }, splitLine: { show: false },
    axisLabel: { show: false },
  };
  const every = Math.max(1, Math.ceil((narrow ? 18 : 24) / apart));
  const dots = models.flatMap((_, lane) => Array.from({ length: layers }, (_, layer) => put(layer, lane)));
  const labels = Array.from({ length: layers }, (_, layer) => layer).filter((layer) => layer % every === 0 || layer === layers - 1 && layer % every > every / 2);
  const most = Math.min(24, apart * 0.62);
  const size = (step) => Math.max(6, Math.min(most, 15 * Math.sqrt(Math.abs(step.scale))));
  const scaled = (step) => Math.abs(step.scale - 1) > 0.0005;
  const grid = { left, right: narrow ? 28 : 16, top: narrow ? 40 : 34, bottom: 12 };
  const back = (from, to) => from.step && to.step && to.step.layer <= from.step.layer;
  const say = (node) => (node.end ? `${node.name} of ${names[node.model]}` : `${node.name}: layer ${node.step.layer} of ${names[node.model]}, scale ${score(node.step.scale)}`);
  const text = (data, at, formatter, more = {}) => ({
    type: "scatter", silent: true, symbolSize: 0.01, z: 1, data: data.map((value) => ({ value: at(value) })),
    itemStyle: { opacity: 1 },
    label: { show: true, color: c.muted, fontSize: 11, formatter: ({ dataIndex }) => formatter(data[dataIndex]), ...more },
    tooltip: { show: false },
  });
  return {
    height: narrow ? Math.ceil((layers - 1 + 2 * margin) * apart) + grid.top + grid.bottom : models.length * laneWide + 50,
    label: `The winner's path through the layers of ${plural(models.length, "model")}. ${pathFinding(path)}`,
    option: {
      grid,
      xAxis: narrow ? lanes : depth,
      yAxis: narrow ? { ...depth } : lanes,
      series: [
        {
          type: "graph", coordinateSystem: "cartesian2d", layout: "none", z: 4,
          edgeSymbol: ["none", "arrow"], edgeSymbolSize: [0, Math.max(4, Math.min(8, apart / 4))],
          data: nodes.map((node) => ({
            value: node.at,
            node,
            symbol: node.end ? "rect" : "circle",
            symbolSize: node.end ? [narrow ? 44 : 40, 18] : size(node.step),
            itemStyle: { color: node.end ? c.surface : colour(node.model), borderColor: node.end ? colour(node.model) : c.text, borderWidth: node.end ? 1.5 : 1 },
            label: {
              show: node.end || (scaled(node.step) && !lost(node.order)),
              position: node.end ? "inside" : narrow ? "right" : "bottom",
              distance: 3,
              color: node.end ? c.text : c.muted,
              fontSize: 10,
              formatter: () => (node.end ? (node.name === "head" ? "head" : "embed") : `×${node.step.scale.toFixed(2)}`),
            },
          })),
          edges: nodes.slice(1).map((node, at) => ({ source: at, target: at + 1, lineStyle: { curveness: back(nodes[at], node) ? 0.1 : 0, color: colour(node.model), type: back(nodes[at], node) ? "dashed" : "solid" } })),
          lineStyle: { width: 2, opacity: 0.95 },
          emphasis: { scale: 1.3, itemStyle: { borderWidth: 2.5 } },
        },
        { type: "scatter", silent: true, z: 1, symbolSize: 4, itemStyle: { color: c.neutral, opacity: 0.55 }, data: dots },
        text([-1, ...labels], (layer) => put(layer < 0 ? -away : layer, -0.5), (layer) => (layer < 0 ? "layer" : String(layer)), { position: narrow ? "left" : "top", distance: 4 }),
        text(models, (model) => (narrow ? [models.indexOf(model), -margin] : [-margin, models.indexOf(model)]), ({ name }) => cut(name, narrow ? 12 : 24), {
          position: narrow ? "top" : "left", color: c.text, fontSize: 12, distance: narrow ? 8 : 6, align: narrow ? "center" : "right",
          width: narrow ? (width - left - 28) / models.length - 6 : left - 12, overflow: "truncate",
        }),
      ],
    },
    stops: nodes.map((node, at) => ({ series: 0, index: at, row: 0, col: at, say: say(node) })),
    move: null,
    tip: ({ dataType, data }) => {
      if (dataType !== "node") return "";
      const { node } = data;
      const rows = [["model", names[node.model]]];
      if (node.step) rows.push(["layer", node.step.layer], ["scale", score(node.step.scale)]);
      return tip(node.end ? node.name : `Step ${node.order}`, rows);
    },
    table: {
      caption: "Steps of the path",
      columns: ["step", "model", "#layer", "#scale"],
      rows: nodes.map((node) => (node.end ? [node.name, names[node.model], "", ""] : [String(node.order), names[node.model], node.step.layer, score(node.step.scale)])),
    },
  };
}

function pathFinding({ models, steps, embed, head, notes }) {
  const ends = embed === head ? `Embedding and head are ${models[embed].name}'s` : `The embedding is ${models[embed].name}'s, the head ${models[head].name}'s`;
  return `${notes.length ? plainSum(notes.join("; ")) : plural(steps.length, "step")}. ${ends}.`;
}

function pathSection() {
  const section = new Section("path");
  const chart = new Chart(section.body);
  return ({ path, headline }) => {
    section.show(path || !headline);
    if (!path) return section.empty("There is no winner yet, so there is no path.");
    section.say(pathFinding(path));
    chart.show((width, c) => pathChart(path, width, c));
  };
}
