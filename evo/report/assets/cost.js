// What it cost, and what happened on the way.

function costSection() {
  const section = new Section("cost");
  return ({ cost }) => {
    if (!cost?.evaluations) return section.empty("Nothing has been evaluated yet, so it has cost nothing.");
    const busy = [["building children", cost.build_seconds], ["running models", cost.model_seconds], ["scoring", cost.score_seconds]].filter(([, value]) => known(value));
    section.say(`${plural(cost.evaluations, "evaluation")}, baselines and final scores among them, on ${plural(cost.examples, "example")} in all; the search took ${duration(cost.search_seconds)} on ${plural(cost.hosts.length, "host")}.`);
    section.body.replaceChildren(
      tiles([
        ["Evaluations", whole(cost.evaluations)],
        ["Examples run", whole(cost.examples)],
        ["Tokens", known(cost.tokens) ? whole(cost.tokens) : NOTHING, known(cost.tokens) ? null : "not counted"],
        ["Search", duration(cost.search_seconds), "wall clock"],
        ["Hosts busy", duration(cost.busy_seconds), "summed over hosts"],
        ["Start-up", duration(cost.startup_seconds)],
        ["Final scores", duration(cost.final_seconds), "select and test"],
        ["Peak memory", bytes(cost.peak_memory_bytes), "of one host"],
      ]),
      el(
        "div",
        { class: "two" },
        el("div", {}, el("h3", {}, "Hosts"), cost.hosts.length
          ? table("Hosts", ["host", "#evaluations", "#busy", "#tokens", "#failed"], cost.hosts.map((one) => [one.host, whole(one.evaluations), duration(one.seconds), whole(one.tokens), whole(one.failed)]))
          : el("p", { class: "muted" }, "No host is on record.")),
        el("div", {}, el("h3", {}, "What the hosts were busy with"), table("What the hosts were busy with", ["part", "#time", "#share"], busy.map(([name, value]) => [name, duration(value), cost.busy_seconds ? percent(value / cost.busy_seconds) : NOTHING]))),
        el("div", {}, el("h3", {}, "Splits"), table("Splits", ["split", "#evaluations", "#busy", "#examples"], cost.splits.map((one) => [one.split, whole(one.evaluations), duration(one.seconds), whole(one.examples)]))),
      ),
    );
  };
}

function eventsSection() {
  const section = new Section("events");
  return ({ events }) => {
    if (!events?.rows?.length) return section.empty("No event is on record.");
    const trouble = Object.entries(events.counts).filter(([kind]) => /lost|retry|retries|fail|resume|restart|dead|error|degraded|extended/.test(kind));
    const counts = Object.entries(events.counts).map(([kind, count]) => `${kind} (${whole(count)})`);
    section.say(
      trouble.length
        ? `Of ${plural(events.rows.length + events.left_out, "event")}, trouble or a new start: ${trouble.map(([kind, count]) => `${kind} (${whole(count)})`).join(", ")}.`
        : `${plural(events.rows.length + events.left_out, "event")}, none of them trouble: ${counts.join(", ")}.`,
    );
    section.body.replaceChildren(
      table("Events", ["time", "#generation", "kind", "~detail"], events.rows.map((one) => [moment(one.time), whole(one.generation), one.kind, one.detail ?? ""])),
      events.left_out ? el("p", { class: "muted" }, `${plural(events.left_out, "event")} left out.`) : "",
    );
  };
}
