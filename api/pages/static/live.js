// The live view: shows each reading of the stream, and the last two minutes as lines. EventSource reconnects by itself.

const KEPT = 120;
const WIDTH = 600;
const HEIGHT = 100;
const SVG = "http://www.w3.org/2000/svg";

const page = document.getElementById("live");
const state = document.getElementById("state");
const sparks = [...page.querySelectorAll(".spark")].map((svg) => new Spark(svg));
const source = new EventSource(page.dataset.events);

source.onopen = () => say("Connected", "");
source.onmessage = (event) => {
  const { numbers, texts } = JSON.parse(event.data);
  for (const [name, text] of Object.entries(texts)) {
    document.getElementById(name).textContent = text;
  }
  for (const spark of sparks) {
    spark.add(numbers[spark.name], texts[spark.name]);
  }
  say("Live", "on");
};
source.onerror = () => {
  if (source.readyState === EventSource.CLOSED) {
    say("Stopped. Reload this page.", "off");
  } else {
    say("Reconnecting", "off");
  }
};
source.addEventListener("away", () => say("No data right now. Retrying.", "off"));
source.addEventListener("end", () => {
  source.close();
  say("Your session has ended. Sign in again.", "off");
});

function say(words, kind) {
  if (state.textContent !== words) {
    state.textContent = words;
  }
  state.className = `state ${kind}`;
}

/** A line of the last readings of one figure; the highest is at the top. */
function Spark(svg) {
  const readings = [];
  const under = document.createElementNS(SVG, "path");
  const line = document.createElementNS(SVG, "path");
  const top = document.getElementById(`${svg.dataset.of}-top`);
  under.setAttribute("class", "under");
  line.setAttribute("class", "line");
  svg.append(under, line);

  this.name = svg.dataset.of;
  this.add = (value, text) => {
    readings.push({ value, text });
    readings.splice(0, readings.length - KEPT);
    const highest = readings.reduce((most, each) => (each.value > most.value ? each : most));
    const points = readings.map((each, index) => {
      const x = WIDTH - ((readings.length - 1 - index) * WIDTH) / (KEPT - 1);
      const y = HEIGHT - 2 - (each.value / Math.max(1, highest.value)) * (HEIGHT - 8);
      return `${x.toFixed(1)} ${y.toFixed(1)}`;
    });
    const path = `M${points.join("L")}`;
    line.setAttribute("d", path);
    under.setAttribute("d", `${path}V${HEIGHT}H${points[0].split(" ")[0]}Z`);
    top.textContent = highest.text;
  };
}
