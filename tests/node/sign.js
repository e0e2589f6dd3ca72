// Signs one note as NanoClaw's tools do: the request goes out without a newline, the reply is read to the end of
// the stream. `half-close` ends our side after writing; `open` does not, and relies on nsecd to close.
// Prints the event if nostr-tools verifies it.
// node sign.js SOCKET half-close|open
const net = require('node:net');
const { verifyEvent } = require('nostr-tools/pure');

const [path, mode] = process.argv.slice(2);
const request = JSON.stringify({
  method: 'sign_event',
  params: { kind: 1, content: 'hello from Node \u2028 \u{1f600}', tags: [['t', 'nsecd']] },
});
let reply = '';
const socket = net.createConnection(path, () => (mode === 'half-close' ? socket.end(request) : socket.write(request)));
socket.setEncoding('utf8');
socket.on('data', (text) => (reply += text));
socket.on('end', () => {
  const { event } = JSON.parse(reply);
  if (!event || !verifyEvent(event)) throw new Error(`not a valid event: ${reply}`);
  console.log(JSON.stringify(event));
});
