// Elements, numbers and words. What comes from a run is text and only ever becomes text nodes.

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "class") node.className = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const LIVE = document.body.dataset.live === "true";
const NOTHING = "–";
const grouped = new Intl.NumberFormat("en");
const whole = (value) => (value === null || value === undefined ? NOTHING : grouped.format(value));
const known = (value) => value !== null && value !== undefined;

function score(value) {
  if (!known(value)) return NOTHING;
  const digits = Math.abs(value) >= 100 ? 1 : 3;
  return value.toFixed(digits).replace("-", "−");
}

const signed = (value) => (known(value) && value > 0 ? `+${score(value)}` : score(value));
const percent = (value) => (known(value) ? `${Math.round(value * 100)} %` : NOTHING);

function scoreWithError(value, error) {
  return known(error) && known(value) ? `${score(value)} ± ${score(error)}` : score(value);
}

function duration(seconds) {
  if (!known(seconds)) return NOTHING;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.round(minutes / 1440)} days`;
}

function bytes(value) {
  if (!known(value)) return NOTHING;
  const step = Math.min(3, Math.floor(Math.log2(Math.max(1, value)) / 10));
  return `${(value / 1024 ** step).toFixed(step ? 1 : 0)} ${["B", "KiB", "MiB", "GiB"][step]}`;
}

function moment(iso) {
  const time = new Date(iso ?? "");
  if (Number.isNaN(time.getTime())) return NOTHING;
  return time.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

// "0.5·a + -0.2·b" as people write it; no line ends within a term.
const plainSum = (text) => (text ?? "").replaceAll("+ -", "− ").replace(/ ([+−]) /g, " $1\u00a0").replace(/e-(?=\d)/g, "e−\u2060");
const plural = (count, one, many = `${one}s`) => `${whole(count)} ${count === 1 ? one : many}`;
const short = (id) => (/^[0-9a-f]{16,}$/.test(id ?? "") ? id.slice(0, 12) : id ?? NOTHING);
const cut = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

const announce = (text) => {
  document.getElementById("announce").textContent = text;
};

// columns: names; a name that starts with "#" is a column of numbers, with "~" one of long text.
function table(caption, columns, rows, rowClass = () => null) {
  const kind = columns.map((name) => ({ "#": "right", "~": "wide" })[name[0]] ?? null);
  const names = columns.map((name, at) => (kind[at] ? name.slice(1) : name));
  const cell = (value, at) =>
    at === 0
      ? el("th", { scope: "row", class: kind[at], title: typeof value === "string" ? value : null }, value)
      : el("td", { class: kind[at] }, value);
  return el(
    "div",
    { class: "table", tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table",
      {},
      el("caption", { class: "unseen" }, caption),
      el("thead", {}, el("tr", {}, names.map((name, at) => el("th", { scope: "col", class: kind[at] }, name)))),
      el("tbody", {}, rows.map((row, at) => el("tr", { class: rowClass(at) }, row.map(cell)))),
    ),
  );
}

function tiles(items) {
  return el(
    "dl",
    { class: "tiles" },
    items.map(([name, value, note, tone]) =>
      el("div", {}, el("dt", {}, name), el("dd", { class: tone }, value, note ? el("small", {}, note) : null)),
    ),
  );
}

// items: {label, colour, line: "solid" | "dashed" | "dotted" | "band"} or {label, colour, mark: "●"}.
function legend(items) {
  return el(
    "ul",
    { class: "legend" },
    items.map(({ label, colour, line, mark }) => {
      const swatch = el("i", { class: mark ? "mark" : line, "aria-hidden": "true" }, mark);
      swatch.style.color = colour;
      return el("li", {}, swatch, label);
    }),
  );
}

let choices = 0;

// A row of radio buttons. Calls `chosen(value)`; `set(value)` chooses without calling.
function choice(label, options, chosen) {
  const name = `choice-${choices++}`;
  const input = ([value]) => el("input", { type: "radio", name, value, onchange: () => chosen(value) });
  const inputs = options.map(input);
  const labels = options.map(([, text], at) => el("label", {}, inputs[at], text));
  const node = el("fieldset", { class: "choice" }, el("legend", {}, label), el("span", {}, labels));
  const set = (value) => inputs.forEach((one) => (one.checked = one.value === value));
  set(options[0][0]);
  return { node, set };
}
