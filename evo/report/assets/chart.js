// One chart: a canvas that the keyboard can walk, its finding in words, and the same numbers as a table.
//
// `show(make)` takes a function (width, colours) -> {height, option, label, stops, tip, table, ...}, and calls it again when
// the width or the theme changes. A stop is one thing to stand on: {series, index, row, col, say}.

function tip(title, rows, note) {
  const pairs = rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
  return el(
    "div",
    { class: "tip" },
    el("strong", {}, title),
    el("dl", {}, pairs),
    note ? el("p", {}, note) : null,
  );
}

const ink = document.createElement("canvas").getContext("2d");

// Width in px that the longest of `texts` takes, at most `most`.
function widest(texts, most, c, size = 12) {
  ink.font = `bold ${size}px ${c.font}`; // some are
  return Math.ceil(Math.min(most, Math.max(0, ...texts.map((text) => ink.measureText(text).width)) + 4));
}

// Round numbers around what there is to show, and the steps between.
function scale(values, ticks = 5, include = []) {
  const all = [...values.filter(known), ...include];
  let low = Math.min(...all);
  let high = Math.max(...all);
  if (!(high > low)) [low, high] = [low - 0.05, low + 0.05];
  const rough = (high - low) / ticks;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const digits = [0, 1, 2, 3, 4, 5, 6].find((count) => Math.abs(step - Number(step.toFixed(count))) < step / 1e6) ?? 6;
  const format = (value) => value.toFixed(digits).replace(/^-(?=.*[1-9])/, "−").replace(/^-/, "");
  return { min: Math.floor(low / step + 1e-9) * step, max: Math.ceil(high / step - 1e-9) * step, interval: step, format };
}

const valueAxis = (c, range, more = {}) => ({
  type: "value",
  min: range.min,
  max: range.max,
  interval: range.interval,
  axisLine: { show: false },
  axisTick: { show: false },
  splitLine: { lineStyle: { color: c.grid } },
  axisLabel: { color: c.muted, fontSize: 12, formatter: range.format, hideOverlap: true },
  nameTextStyle: { color: c.muted, fontSize: 12 },
  ...more,
});

// From 0 to exactly `last`, whose own label gives way to a neighbour that is too near.
function countAxis(c, last, ticks, name, format = (value) => (Number.isInteger(value) ? whole(value) : "")) {
  const range = scale([0, last], ticks);
  const over = last % range.interval;
  const crowded = over > 1e-9 * last && over < 0.45 * range.interval;
  return valueAxis(c, { ...range, max: last, format: (value) => (crowded && value === last ? "" : format(value)) }, {
    splitLine: { show: false },
    name,
    nameLocation: "middle",
    nameGap: 28,
  });
}

const categoryAxis = (c, data, width, more = {}) => ({
  type: "category",
  data,
  axisLine: { show: false },
  axisTick: { show: false },
  splitLine: { show: false },
  axisLabel: { color: c.text, fontSize: 12, interval: 0, width, overflow: "truncate" },
  ...more,
});

class Chart {
  constructor(host, keys = "chart-keys") {
    this.area = el("div", {
      class: "chart",
      tabindex: "0",
      role: "application",
      "aria-roledescription": "chart",
      "aria-describedby": keys,
      onkeydown: (event) => this.key(event),
      onblur: () => this.leave(),
    });
    this.scroller = el("div", { class: "chart-scroll" }, this.area);
    this.slot = el("div");
    this.details = el("details", { class: "as-table", ontoggle: () => this.fillTable() });
    this.details.append(el("summary", {}, "Show as table"), this.slot);
    host.append(this.scroller, this.details);
    this.made = null;
    this.at = null;
    redraws.add(() => this.draw());
    // A canvas can't follow the width of paper; a picture of it can.
    window.addEventListener("beforeprint", () => this.echart && this.scroller.before(this.picture()));
    window.addEventListener("afterprint", () => host.querySelector("img")?.remove());
    let width = 0;
    new ResizeObserver(([entry]) => {
      if (Math.round(entry.contentRect.width) === width) return;
      width = Math.round(entry.contentRect.width);
      requestAnimationFrame(() => this.draw());
    }).observe(this.scroller);
  }

  show(make) {
    this.make = make;
    this.draw();
  }

  draw() {
    const room = this.scroller.clientWidth - 4;
    if (room <= 0 || !this.make) return;
    const c = colours();
    this.made = this.make(room, c);
    this.area.style.height = `${this.made.height}px`;
    this.area.style.width = `${Math.max(room, this.made.width ?? 0)}px`;
    if (!this.echart) {
      this.echart = echarts.init(this.area, null, { renderer: "canvas" });
      this.echart.on("click", (event) => this.made.pin?.(event));
    }
    // Else ECharts would look for the tooltip's old place a moment later, and hide what the keyboard stands on.
    if (this.at) this.echart.dispatchAction({ type: "hideTip" });
    this.echart.resize();
    this.echart.setOption(
      {
        animation: false,
        backgroundColor: "transparent",
        textStyle: { fontFamily: c.font, color: c.text },
        tooltip: {
          trigger: "item",
          confine: true,
          transitionDuration: 0,
          displayTransition: false,
          hideDelay: 0,
          backgroundColor: c.surface,
          borderColor: c.line,
          padding: [8, 11],
          textStyle: { color: c.text, fontFamily: c.font },
          extraCssText: "white-space: normal; box-shadow: 0 4px 18px rgb(0 0 0 / 18%); border-radius: 8px;",
          ...this.made.tooltip,
          formatter: (about) => this.made.tip?.(about) ?? "",
        },
        ...this.made.option,
      },
      { notMerge: true },
    );
    this.area.setAttribute("aria-label", this.made.label);
    this.fillTable();
    if (this.at) {
      this.at = this.made.stops.find((stop) => stop.row === this.at.row && stop.col === this.at.col) ?? null;
      if (this.at) this.point();
    }
  }

  picture() {
    return el("img", { class: "printed", alt: this.made.label, src: this.echart.getDataURL({ pixelRatio: 2 }) });
  }

  fillTable() {
    if (this.details.open && this.made) {
      const { caption, columns, rows } = this.made.table;
      this.slot.replaceChildren(table(caption, columns, rows));
    }
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") {
      this.made?.escape?.();
      this.leave();
    } else if ((event.key === "Enter" || event.key === " ") && this.at) {
      this.made.pin?.({ stop: this.at });
      if (this.made.pin) this.echart.dispatchAction({ type: "hideTip" }); // what it said stands below now
    } else {
      const next = this.next(event.key);
      if (!next) return;
      this.at = next;
      this.point();
      announce(next.say);
    }
    event.preventDefault();
  }

  next(key) {
    const stops = this.made?.stops ?? [];
    if (!stops.length || !/^(Arrow|Home|End)/.test(key)) return null;
    if (key === "Home") return stops[0];
    if (key === "End") return stops.at(-1);
    if (!this.at) return this.made.first ?? stops[0];
    if (this.made.move) return this.made.move(this.at, key) ?? this.at;
    const along = key === "ArrowLeft" || key === "ArrowRight";
    const forward = key === "ArrowRight" || key === "ArrowDown" ? 1 : -1;
    const [main, other] = along ? ["col", "row"] : ["row", "col"];
    const off = (stop) => (stop[main] - this.at[main]) * forward;
    const ahead = stops.filter((stop) => off(stop) > 0 && (!along || stop.row === this.at.row));
    const nearest = Math.min(...ahead.map(off));
    const candidates = ahead.filter((stop) => off(stop) === nearest);
    const apart = (stop) => Math.abs(stop[other] - this.at[other]);
    return candidates.sort((a, b) => apart(a) - apart(b))[0] ?? this.at;
  }

  point() {
    const where = { seriesIndex: this.at.series, dataIndex: this.at.index };
    this.echart.dispatchAction({ type: "downplay" });
    this.echart.dispatchAction({ type: "highlight", ...where });
    this.echart.dispatchAction({ type: "showTip", ...where });
  }

  leave() {
    this.at = null;
    this.echart?.dispatchAction({ type: "downplay" });
    this.echart?.dispatchAction({ type: "hideTip" });
  }
}
