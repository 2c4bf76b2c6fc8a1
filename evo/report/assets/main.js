// Draws every section from the facts, and again when they change: only what has changed, so that focus and scroll stay.

function about({ run }) {
  const failed = run.failed ? `${whole(run.failed)} failed` : null;
  const budget = known(run.budget) ? `${whole(run.evaluations)} of ${plural(run.budget, "evaluation")}` : plural(run.evaluations, "evaluation");
  const parts = [run.algorithm, known(run.seed) ? `seed ${run.seed}` : null, budget, plural(run.generations, "generation"), failed, `started ${moment(run.started)}`];
  const badge = el("span", { class: "badge" }, { starting: "○ starting", running: "● running", stopped: "■ stopped", finished: "✓ finished" }[run.state] ?? run.state);
  document.getElementById("name").textContent = run.name;
  document.getElementById("about").replaceChildren(badge, run.state === "starting" ? "" : ` ${parts.filter(Boolean).join(" · ")}`);
  document.title = `${run.name} – evo report`;
}

function problem({ problem: text }) {
  const box = document.getElementById("problem");
  box.textContent = text ? `Not all could be read: ${text}` : "";
  box.hidden = !text;
}

startTheme();
const PARTS = [
  [about, ["run"]],
  [problem, ["problem"]],
  [headlineSection(), ["headline", "run"]],
  [fitnessSection(), ["fitness"]],
  [scoresSection(), ["scores", "run"]],
  [familySection(), ["family", "headline"]],
  [sharesSection(), ["shares", "path"]],
  [pathSection(), ["path", "headline"]],
  [changedSection(), ["changed"]],
  [diversitySection(), ["diversity"]],
  [operatorsSection(), ["operators"]],
  [costSection(), ["cost"]],
  [eventsSection(), ["events"]],
];
const drawn = new Map();

const columns = document.querySelector(".columns");

function update(facts) {
  columns.hidden = false;
  for (const [draw, needs] of PARTS) {
    const seen = JSON.stringify(needs.map((name) => facts[name] ?? null));
    if (drawn.get(draw) === seen) continue;
    drawn.set(draw, seen);
    draw(facts);
  }
}

const embedded = JSON.parse(document.getElementById("facts").textContent);
columns.hidden = !embedded;
if (embedded) update(embedded);
else document.getElementById("about").textContent = "Waiting for the first facts.";
if (LIVE) follow(update);
