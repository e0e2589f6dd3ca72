// Opens COUNT connections at once, as nostr-dm does after a reconnect, each asking for the public key.
// Prints how many got it; a refused or reset connection would have lost a message.
// node crowd.js SOCKET COUNT
const net = require('node:net');

const [path, count] = process.argv.slice(2);
const ask = () =>
  new Promise((resolve) => {
    let reply = '';
    const socket = net.createConnection(path, () => socket.end('{"method":"get_public_key"}'));
    socket.on('data', (bytes) => (reply += bytes));
    socket.on('error', (error) => resolve(error.code));
    socket.on('end', () => resolve(/^\{"pubkey":"[0-9a-f]{64}"\}\n$/.test(reply) ? 'served' : `odd reply: ${reply}`));
  });
Promise.all(Array.from({ length: Number(count) }, ask)).then((outcomes) => {
  const counts = {};
  for (const outcome of outcomes) counts[outcome] = (counts[outcome] ?? 0) + 1;
  console.log(JSON.stringify(counts));
});
