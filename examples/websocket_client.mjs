// Asks questions on one WebSocket and writes the answers as they arrive. Node 22 or newer (20: with
// --experimental-websocket), no packages. As in a browser, the key goes as a subprotocol: never in the URL.
//
//   NAKA_KEY=nk_... node websocket_client.mjs "What is a webhook?" "And a WebSocket?"

const URL = (process.env.NAKA_URL ?? "http://127.0.0.1:8000").replace(/^http/, "ws");

/** Asks one question; `write` gets the text. The connection stays open after a refusal. */
function ask(socket, message, write) {
  return new Promise((done, fail) => {
    socket.onclose = (event) => fail(new Error(event.reason || "the answer broke off"));
    socket.onmessage = ({ data }) => {
      const frame = JSON.parse(data);
      if (frame.error) fail(new Error(`${frame.error.status} ${frame.error.detail}`));
      else if (frame.done) done();
      else write(frame.text);
    };
    socket.send(JSON.stringify({ message }));
  });
}

const socket = new WebSocket(`${URL}/chat`, ["naka", `naka.bearer.${process.env.NAKA_KEY ?? ""}`]);
try {
  await new Promise((opened, refused) => {
    socket.onopen = opened;
    socket.onerror = () => refused(new Error("refused: is the key valid?")); // a browser is not told why
  });
  for (const message of process.argv.length > 2 ? process.argv.slice(2) : ["What is a webhook?"]) {
    await ask(socket, message, (text) => process.stdout.write(text));
    process.stdout.write("\n");
  }
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
socket.onclose = null;
socket.close();
