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

  empty(text) {
    this.finding.textContent = text;
    this.body.hidden = true;
  }
}
