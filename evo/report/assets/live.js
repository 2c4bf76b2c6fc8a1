// Following a run that goes on: asks for data.json again and again, and says how fresh what is shown is.

const EVERY_MS = 2000;
const SLOWEST_MS = 30000;

function follow(update) {
  const status = document.getElementById("live");
  status.hidden = false;
  let tag = null;
  let fetched = null;
  let failures = 0;
  let over = false;
  let timer = null;

  function tell() {
    const age = fetched === null ? null : Math.max(0, Math.round((Date.now() - fetched) / 1000));
    status.classList.toggle("lost", failures > 0);
    // Every second aloud would be noise: only a change of state is announced, the seconds are for the eye.
    const state = failures ? "lost connection, trying again" : over ? "the run is over" : "live";
    if (status.dataset.state !== state) {
      status.dataset.state = state;
      status.replaceChildren(state, el("span", { "aria-hidden": "true" }));
    }
    status.lastChild.textContent = age === null || over ? "" : `, updated ${age < 90 ? `${age} s` : duration(age)} ago`;
  }

  async function ask() {
    clearTimeout(timer);
    try {
      const answer = await fetch("data.json", { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
      if (answer.status !== 304) {
        if (!answer.ok) throw new Error(`data.json: ${answer.status}`);
        const facts = await answer.json();
        tag = answer.headers.get("ETag");
        over = facts?.run?.state === "finished";
        update(facts);
      }
      fetched = Date.now();
      failures = 0;
    } catch {
      failures += 1;
    }
    tell();
    const wait = document.hidden || over ? SLOWEST_MS / 2 : EVERY_MS * 2 ** Math.min(failures, 4);
    timer = setTimeout(ask, Math.min(SLOWEST_MS, wait));
  }

  document.addEventListener("visibilitychange", () => document.hidden || ask());
  setInterval(tell, 1000);
  ask();
}
