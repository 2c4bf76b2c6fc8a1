// The winner's family tree: generations from left to right. Hovering or walking there shows operator, parents and scores;
// a click or Enter pins an individual: its own ancestors stay lit, and its details stay open below.

const STAR = "path://M12 1l3.1 7 7.6.7-5.8 5 1.8 7.5L12 17.2 5.3 21.2l1.8-7.5-5.8-5 7.6-.7z";
const CROSS = "path://M8.5 2h7v6.5H22v7h-6.5V22h-7v-6.5H2v-7h6.5z";
const SYMBOLS = [
  ["circle", "blue", "●"], ["triangle", "vermillion", "▲"], ["diamond", "green", "◆"],
  [STAR, "purple", "★"], [CROSS, "sky", "✚"], ["path://M2 4h20L12 21z", "yellow", "▼"],
];
const FOUNDER = ["rect", "orange", "■"];

function marksOf(nodes) {
  const others = [...new Set(nodes.map((node) => node.operator))].filter((name) => name !== "founder");
  return new Map([["founder", FOUNDER], ...others.map((name, at) => [name, SYMBOLS[Math.min(at, SYMBOLS.length - 1)]])]);
}

// An individual and all from which lines lead to it, as positions in nodes.
function lineOf(edges, from) {
  const found = new Set();
  const wait = [from];
  while (wait.length) {
    const next = wait.pop();
    if (found.has(next)) continue;
    found.add(next);
    wait.push(...edges.filter(([, child]) => child === next).map(([parent]) => parent));
  }
  return found;
}

function familyChart(family, winner, pinned, pin, width, c) {
  const { nodes, edges } = family;
  const marks = marksOf(nodes);
  const lit = pinned ? lineOf(edges, nodes.findIndex(({ id }) => id === pinned)) : null;
  const shaded = (at) => lit !== null && !lit.has(at);
  const counts = new Map();
  nodes.forEach((node) => counts.set(node.generation, (counts.get(node.generation) ?? 0) + 1));
  const height = Math.min(680, Math.max(260, Math.max(...counts.values()) * 24 + 70));
  const last = Math.max(1, ...nodes.map((node) => node.generation));
  const founders = nodes.filter((node) => node.operator === "founder").map((node) => node.name);
  const left = widest(founders, width < 500 ? 78 : 130, c, 11) + 24;
  const name = (id) => nodes.find((node) => node.id === id)?.name ?? short(id);
  const parents = (node) => (node.parents.length ? node.parents.map(name).join(", ") : "none");
  const order = nodes.map((_, at) => at).sort((a, b) => nodes[a].generation - nodes[b].generation || nodes[a].lane - nodes[b].lane);
  const say = (node) =>
    `${node.name}, generation ${node.generation}, by ${node.operator}, parents ${parents(node)}, fitness ${score(node.fitness)}`;
  const stops = order.map((at, row) => ({ series: 0, index: at, row, col: 0, node: nodes[at], say: say(nodes[at]) }));
  const stopOf = (id) => stops.find((stop) => stop.node.id === id);
  return {
    height,
    label: `Family tree of the winner. ${familyFinding(family)}`,
    option: {
      grid: { left, right: 76, top: 16, bottom: 44 },
      xAxis: { ...countAxis(c, last, width < 500 ? 5 : 10, "generation"), splitLine: { show: true, lineStyle: { color: c.grid } } },
      yAxis: { type: "value", min: 0, max: 1, inverse: true, show: false },
      series: [
        {
          type: "graph",
          coordinateSystem: "cartesian2d",
          layout: "none",
          cursor: "pointer",
          data: nodes.map((node, at) => {
            const [symbol, colour] = marks.get(node.operator);
            const isWinner = node.id === winner;
            const own = node.operator === "founder" || isWinner;
            return {
              value: [node.generation, node.lane],
              node,
              symbol,
              symbolSize: isWinner ? 22 : node.id === pinned ? 17 : 12,
              itemStyle: { color: c[colour], borderColor: isWinner || node.id === pinned ? c.text : c.surface, borderWidth: isWinner || node.id === pinned ? 2.5 : 1, opacity: shaded(at) ? 0.13 : 1 },
              label: {
                show: own,
                position: isWinner ? "right" : "left",
                distance: 7,
                color: c.text,
                opacity: shaded(at) ? 0.35 : 1,
                fontSize: isWinner ? 12 : 11,
                fontWeight: isWinner ? 700 : 400,
                formatter: () => (isWinner ? "winner" : node.name),
                width: isWinner ? undefined : left - 22,
                overflow: isWinner ? "none" : "truncate",
              },
            };
          }),
          edges: edges.map(([source, target]) => ({
            source,
            target,
            lineStyle: { opacity: shaded(source) || shaded(target) ? 0.08 : lit ? 0.95 : 0.55, width: lit ? 2 : 1.3 },
          })),
          lineStyle: { color: c.neutral, curveness: 0 },
          emphasis: { scale: 1.35, itemStyle: { borderColor: c.text, borderWidth: 2.5 }, label: { show: true, opacity: 1 } },
        },
      ],
    },
    stops,
    first: stopOf(winner) ?? stops.at(-1),
    move: (stop, key) => {
      const at = stops.indexOf(stop);
      if (key === "ArrowUp") return stops[at - 1];
      if (key === "ArrowDown") return stops[at + 1];
      const [here, there] = key === "ArrowLeft" ? [1, 0] : [0, 1];
      const edge = edges.find((one) => one[here] === stop.index);
      return edge && stopOf(nodes[edge[there]].id);
    },
    pin: (event) => {
      const node = event.stop?.node ?? event.data?.node;
      if (node) pin(node.id === pinned ? null : node.id);
    },
    escape: () => pin(null),
    tip: ({ dataType, data }) =>
      dataType === "node"
        ? tip(
            data.node.name,
            [["operator", data.node.operator], ["parents", parents(data.node)], ["generation", data.node.generation], ["fitness", scoreWithError(data.node.fitness, data.node.standard_error)], ...taskScores(data.node)],
            data.node.id === pinned ? "Pinned" : "Click or Enter: pin it and its ancestors",
          )
        : "",
    table: {
      caption: "Family of the winner",
      columns: ["individual", "#generation", "operator", "parents", "#fitness"],
      rows: order.map((at) => [nodes[at].name, nodes[at].generation, nodes[at].operator, parents(nodes[at]), scoreWithError(nodes[at].fitness, nodes[at].standard_error)]),
    },
  };
}

function taskScores(node) {
  const tasks = Object.entries(node.tasks ?? {});
  return tasks.length > 1 ? tasks.slice(0, 8).map(([task, value]) => [task, score(value)]) : [];
}

function familyFinding({ nodes, left_out }) {
  const founders = nodes.filter((node) => node.operator === "founder").length;
  const depth = Math.max(...nodes.map((node) => node.generation));
  const rest = left_out ? ` ${plural(left_out, "further ancestor")} ${left_out === 1 ? "is" : "are"} left out.` : "";
  return `${plural(nodes.length - founders, "evolved individual")} over ${plural(depth, "generation")}, from ${plural(founders, "founder")}.${rest}`;
}

function pinnedCard(node, nodes, pin) {
  const of = (id) => nodes.find((other) => other.id === id);
  const parent = (id) =>
    of(id) ? el("button", { type: "button", class: "plain", onclick: () => pin(id, true) }, of(id).name) : short(id);
  const parents = node.parents.flatMap((id, at) => (at ? [", ", parent(id)] : [parent(id)]));
  const fact = (name, ...value) => [el("dt", {}, name), el("dd", {}, value)];
  return el(
    "div",
    { class: "card", id: "pinned" },
    el("h3", { tabindex: "-1" }, node.name, el("button", { type: "button", onclick: () => pin(null, true) }, "Unpin")),
    el(
      "dl",
      {},
      fact("operator", node.operator),
      fact("generation", String(node.generation)),
      fact("fitness on dev", scoreWithError(node.fitness, node.standard_error)),
      taskScores(node).flatMap(([task, value]) => fact(task, value)),
      fact("parents", ...(parents.length ? parents : ["none"])),
      fact("made of", el("span", { class: "text" }, plainSum(node.description))),
      fact("id", el("code", {}, node.id)),
    ),
  );
}

function familySection() {
  const section = new Section("family");
  const key = el("div");
  const card = el("div");
  section.body.append(key);
  const chart = new Chart(section.body, "tree-keys");
  chart.scroller.after(card);
  let pinned = null;
  let facts = null;

  function pin(id, moveFocus = false) {
    if (id === pinned) return;
    pinned = id;
    draw();
    const node = facts.family.nodes.find((one) => one.id === id);
    announce(node ? `Pinned ${node.name} and its ancestors.` : "Unpinned.");
    if (moveFocus) (node ? card.querySelector("h3") : chart.area).focus();
  }

  function draw() {
    const { family, winner } = facts;
    const node = family.nodes.find(({ id }) => id === pinned);
    card.replaceChildren(...(node ? [pinnedCard(node, family.nodes, pin)] : []));
    chart.show((width, c) => {
      const marks = [...marksOf(family.nodes)].map(([label, [, colour, mark]]) => ({ label: cut(label, 40), colour: c[colour], mark }));
      key.replaceChildren(legend(marks));
      return familyChart(family, winner, node ? pinned : null, pin, width, c);
    });
  }

  return ({ family, headline }) => {
    if (!family?.nodes?.length) return section.empty("There is no winner yet, so there is no family to draw.");
    const children = new Set(family.edges.map(([parent]) => parent));
    const tips = family.nodes.filter((_, at) => !children.has(at)).sort((a, b) => b.generation - a.generation);
    const winner = headline?.winner?.id;
    if (family.nodes.length === 1) return section.empty(`The best so far is a founder, ${cut(family.nodes[0].name, 60)}: it has no ancestors.`);
    facts = { family, winner: family.nodes.some(({ id }) => id === winner) ? winner : tips[0]?.id };
    section.say(familyFinding(family));
    draw();
  };
}
