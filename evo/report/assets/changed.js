// Examples that changed from wrong to right and back, against the best founder.

const PAGE = 12;

// Of scores between right and wrong one can only say that they got better or worse.
const graded = (one) => [one.was_value, one.now_value].some((value) => value !== 0 && value !== 1);

function exampleItem(one) {
  const fixed = one.change === "fixed";
  const words = graded(one) ? ["better", "worse"] : ["wrong → right", "right → wrong"];
  const judged = (value) => (graded(one) ? `scored ${score(value)}` : value ? "right" : "wrong");
  const said = known(one.was) || known(one.now);
  const silent = said ? "; what it said is not recorded" : "";
  const answer = (name, text, value) => [el("dt", {}, name), el("dd", {}, known(text) ? el("span", { class: "text" }, text) : el("span", { class: "muted" }, judged(value) + silent))];
  return el(
    "li",
    {},
    el(
      "div",
      { class: "head" },
      el("b", { class: fixed ? "good" : "bad" }, fixed ? `✓ ${words[0]}` : `✗ ${words[1]}`),
      el("span", {}, one.task),
      el("span", {}, `example ${one.example}`),
    ),
    known(one.prompt) ? el("p", { class: "text" }, one.prompt) : null,
    el(
      "dl",
      {},
      known(one.expected) ? [el("dt", {}, "Expected"), el("dd", {}, el("span", { class: "text" }, one.expected))] : null,
      said || graded(one) ? [answer("Was", one.was, one.was_value), answer("Now", one.now, one.now_value)].flat() : null,
    ),
  );
}

function changedSection() {
  const section = new Section("changed");
  const counts = el("div");
  const search = el("input", { type: "search", placeholder: "Filter by text", "aria-label": "Filter examples by text" });
  const task = el("select", { "aria-label": "Task" });
  const kind = choice("Show", [["all", "all"], ["fixed", "better"], ["broken", "worse"]], () => list(PAGE));
  const state = el("p", { class: "muted", role: "status" });
  const items = el("ul", { class: "examples" });
  const more = el("button", { type: "button" }, "Show more");
  const bar = el("div", { class: "bar" }, kind.node, search, task);
  section.body.append(counts, bar, state, items, more);
  let facts = null;
  let shown = PAGE;

  function matching() {
    const words = search.value.trim().toLowerCase();
    const way = kind.node.querySelector(":checked").value;
    const has = (one) => [one.prompt, one.expected, one.was, one.now].some((text) => String(text ?? "").toLowerCase().includes(words));
    return facts.examples.filter((one) => (way === "all" || one.change === way) && (!task.value || one.task === task.value) && has(one));
  }

  function list(limit) {
    shown = limit;
    const found = matching();
    const asked = facts.examples.some((one) => known(one.prompt)) ? "" : " What was asked is not at hand: its file has gone or changed, or a function asks it.";
    const rest = facts.left_out ? ` ${whole(facts.left_out)} more changed and are not in this report.` : "";
    state.textContent = `${whole(Math.min(shown, found.length))} of ${plural(found.length, "example")} shown.${rest}${asked}`;
    items.replaceChildren(...found.slice(0, shown).map(exampleItem));
    more.hidden = found.length <= shown;
  }

  search.addEventListener("input", () => list(PAGE));
  task.addEventListener("change", () => list(PAGE));
  more.addEventListener("click", () => {
    const before = shown;
    list(shown + PAGE);
    const first = items.children[before];
    first.tabIndex = -1;
    first.focus();
  });

  return ({ changed }) => {
    if (!changed) return section.empty("There is nothing to compare yet: it needs a winner and a founder scored on the same examples.");
    facts = changed;
    const mixed = changed.examples.some(graded);
    const did = mixed
      ? `scores higher on ${plural(changed.fixed, "example")} and lower on ${whole(changed.broken)}`
      : `gets ${whole(changed.fixed)} right that were wrong, and ${whole(changed.broken)} wrong that were right`;
    section.say(`Against ${cut(changed.against.name, 60)} on ${changed.split}, the winner ${did}.`);
    counts.replaceChildren(
      tiles([
        [mixed ? "✓ Better" : "✓ Wrong to right", whole(changed.fixed), null, "good"],
        [mixed ? "✗ Worse" : "✗ Right to wrong", whole(changed.broken), null, "bad"],
        [mixed ? "The same, 0.5 or more" : "Right in both", whole(changed.both_right)],
        [mixed ? "The same, below 0.5" : "Wrong in both", whole(changed.both_wrong)],
      ]),
    );
    const names = [...new Set(changed.examples.map((one) => one.task))];
    const chosen = task.value;
    task.replaceChildren(el("option", { value: "" }, "All tasks"), ...names.map((name) => el("option", { value: name }, name)));
    task.value = names.includes(chosen) ? chosen : "";
    task.hidden = names.length < 2;
    bar.hidden = !changed.examples.length;
    list(shown);
  };
}
