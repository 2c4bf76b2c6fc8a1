// A section: a heading, one sentence with the finding (or why there is nothing), and a body.

class Section {
  constructor(id) {
    this.root = document.getElementById(id);
    this.finding = el("p", { class: "finding" });
    this.body = el("div");
    this.root.append(this.finding, this.body);
  }

  say(text) {
    this.finding.textContent = text;
    this.body.hidden = false;
  }

  // What can't be in this run has no place in its report.
  show(shown) {
    this.root.hidden = !shown;
    document.querySelector(`nav a[href="#${this.root.id}"]`).parentElement.hidden = !shown;
  }

  empty(text) {
    this.finding.textContent = text;
    this.body.hidden = true;
  }
}
