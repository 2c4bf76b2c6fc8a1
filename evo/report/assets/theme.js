// Light and dark: what the system says until the reader says otherwise. Charts take their colours from the style sheet.

const THEME_KEY = "evo-report-theme";
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const redraws = new Set();

// Storage is refused in some browsers for files; the choice then lasts as long as the page.
function remembered(value) {
  try {
    if (value) localStorage.setItem(THEME_KEY, value);
    return localStorage.getItem(THEME_KEY);
  } catch {
    return value ?? null;
  }
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  const other = theme === "dark" ? "Light" : "Dark";
  document.getElementById("theme").textContent = `${other} theme`;
  redraws.forEach((draw) => draw());
}

function startTheme() {
  const wanted = () => remembered() ?? (systemDark.matches ? "dark" : "light");
  let screen = wanted();
  setTheme(screen);
  systemDark.addEventListener("change", () => setTheme((screen = wanted())));
  document.getElementById("theme").addEventListener("click", () => {
    screen = screen === "dark" ? "light" : "dark";
    remembered(screen);
    setTheme(screen);
  });
  // Before the charts' own listeners, which take pictures of what is drawn.
  window.addEventListener("beforeprint", () => setTheme("light"));
  window.addEventListener("afterprint", () => setTheme(screen));
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["bg", "surface", "sunken", "text", "muted", "line", "grid", "accent"];
  const marks = ["blue", "vermillion", "green", "purple", "orange", "sky", "yellow", "neutral"];
  return {
    ...Object.fromEntries([...names, ...marks].map((name) => [name, colour(name)])),
    font: getComputedStyle(document.body).fontFamily,
    dark: document.documentElement.dataset.theme === "dark",
  };
}

// Cividis (Nuñez, Anderton & Renslow 2018): one ramp for every kind of colour vision. More is darker on light, lighter on dark.
const CIVIDIS = [
  [0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115],
  [138, 134, 120], [165, 156, 116], [195, 179, 105], [232, 212, 92], [254, 240, 170],
];

function ramp(share, dark) {
  const at = Math.min(1, Math.max(0, dark ? share : 1 - share)) * (CIVIDIS.length - 1);
  const low = CIVIDIS[Math.floor(at)];
  const high = CIVIDIS[Math.ceil(at)];
  // On light, small shares fade into the paper, so that the eye goes to the large ones.
  const paper = dark ? 0 : 0.72 * (1 - Math.min(1, share)) ** 2;
  const mixed = low.map((from, channel) => {
    const value = from + (high[channel] - from) * (at % 1);
    return Math.round(value + (255 - value) * paper);
  });
  const light = 0.299 * mixed[0] + 0.587 * mixed[1] + 0.114 * mixed[2];
  return { fill: `rgb(${mixed.join(" ")})`, ink: light > 125 ? "#10141c" : "#ffffff" };
}
