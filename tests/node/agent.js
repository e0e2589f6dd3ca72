// What runs in a NanoClaw container, over and over until the file STOP is there: signs under one session that it started, is
// refused, sends a direct message that nostr-tools opens at the other end, and reads one that nostr-tools wrote.
// Every answer is checked; the first wrong one ends it. A request that was cut off is asked again, as tools that come back do.
// Prints a line of JSON for each cycle, and at the end what it did. Exit code 3: nobody listens behind the socket's file.
// node agent.js SOCKET STOP
const fs = require('node:fs');
const net = require('node:net');
const { generateSecretKey, getEventHash, getPublicKey, verifyEvent } = require('nostr-tools/pure');
const nip17 = require('nostr-tools/nip17');
const nip59 = require('nostr-tools/nip59');

const [path, stop] = process.argv.slice(2);
const counts = { cycles: 0, cut: 0, lost: 0 };
const must = (condition, what, found) => {
  if (!condition) throw new Error(`${what}: ${JSON.stringify(found)}`);
};

// A connection for each request, without a newline: clawstr-post ends its side, blossom-upload waits for ours.
const once = (half) => (text) =>
  new Promise((resolve) => {
    let reply = '';
    let code;
    const socket = net.createConnection(path, () => (half ? socket.end(text) : socket.write(text)));
    socket.setEncoding('utf8');
    socket.on('data', (part) => (reply += part));
    socket.on('error', (error) => (code = error.code));
    socket.on('close', () => resolve({ reply, code }));
  });

// One connection for many requests, made anew when it is lost.
let kept;
const open = () => {
  const link = { socket: net.createConnection(path), buffer: '' };
  link.socket.setEncoding('utf8');
  link.socket.on('connect', () => (link.connected = true));
  link.socket.on('data', (part) => {
    link.buffer += part;
    const end = link.buffer.indexOf('\n') + 1;
    if (end > 0) {
      link.waiting({ reply: link.buffer.slice(0, end) });
      link.buffer = link.buffer.slice(end);
      link.waiting = undefined;
    }
  });
  link.socket.on('error', (error) => (link.code = error.code));
  link.socket.on('close', () => {
    if (link.connected) counts.lost++;
    if (kept === link) kept = undefined;
    link.waiting?.({ reply: '', code: link.code });
  });
  return link;
};
const persistent = (text) =>
  new Promise((resolve) => {
    kept ??= open();
    kept.waiting = resolve;
    kept.socket.write(`${text}\n`);
  });

const WAYS = [once(true), persistent, once(false)];
let asked = 0;
async function ask(method, params) {
  const text = JSON.stringify({ method, params });
  for (;;) {
    const { reply, code } = await WAYS[asked++ % WAYS.length](text);
    if (reply.endsWith('\n')) {
      const value = JSON.parse(reply);
      if (value.code !== 'unavailable') return value;
    }
    if (code === 'ECONNREFUSED' || code === 'ENOENT') {
      console.log(JSON.stringify({ dead: code }));
      process.exit(3);
    }
    counts.cut++;
  }
}

async function refused(params, text, code) {
  const reply = await ask('sign_event', { content: '', ...params });
  must(reply.error === text && reply.code === code, 'the refusal', reply);
}

async function cycle(n, pubkey, token) {
  const content = `note ${n} \u2028 \u{1f600}`;
  const signed = await ask('sign_event', { kind: 1, content, tags: [['t', 'nsecd']], session_token: token });
  const event = signed.event ?? {};
  must(event.content === content && event.pubkey === pubkey && verifyEvent(event), 'the note', signed);
  await refused({ kind: 7, session_token: token }, 'Event kind 7 not in session scope [1]', 'out_of_scope');
  await refused({ kind: 1 }, 'Event kind 1 not allowed without a session token', 'no_session');

  const secret = generateSecretKey();
  const peer = getPublicKey(secret);
  const sent = await ask('wrap_dm', { recipientPubkey: peer, message: `to you ${n}` });
  must(sent.events?.length === 2 && sent.events.every(verifyEvent), 'the wraps', sent);
  const rumor = nip59.unwrapEvent(sent.events[1], secret);
  must(rumor.content === `to you ${n}` && rumor.pubkey === pubkey && rumor.id === getEventHash(rumor), 'sent', rumor);
  const wrap = nip17.wrapEvent(secret, { publicKey: pubkey }, `to me ${n}`);
  const read = await ask('unwrap_gift_wrap', { event: wrap });
  must(read.rumor?.content === `to me ${n}` && read.rumor.pubkey === peer, 'read', read);
}

async function life() {
  const { pubkey } = await ask('get_public_key');
  const { session } = await ask('session_start', { scope: '1', ttl: '28800' });
  must(session?.allowedKinds.join() === '1', 'the session', session);
  while (!fs.existsSync(stop)) {
    await cycle(++counts.cycles, pubkey, session.token);
    console.log(JSON.stringify(counts));
  }
  const info = await ask('session_info', { token: session.token });
  must(info.session.signCount >= counts.cycles, 'the count', info);
  must((await ask('session_revoke', { token: session.token })).revoked === true, 'revoked');
  await refused({ kind: 1, session_token: session.token }, 'Invalid session token', 'no_session');
  kept?.socket.destroy();
  console.log(JSON.stringify(counts));
}

life();
