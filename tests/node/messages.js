// Encryption and direct messages against nostr-tools, as the other end and as the judge.
//   cross COUNT      random texts of 1 to 65,535 bytes of Unicode, each method in both directions
//   forge [NAMES]    each way of forging a gift wrap, or those named; prints what nsecd answers to each
//   backlog N JUNK   so many genuine wraps and so much junk, one connection each, all at once
// Prints one line of JSON.
// node messages.js SOCKET COMMAND [ARGUMENTS]
const net = require('node:net');
const crypto = require('node:crypto');
const { finalizeEvent, generateSecretKey, getEventHash, getPublicKey, verifyEvent } = require('nostr-tools/pure');
const nip04 = require('nostr-tools/nip04');
const nip44 = require('nostr-tools/nip44');
const nip17 = require('nostr-tools/nip17');
const nip59 = require('nostr-tools/nip59');

const [path, command, ...args] = process.argv.slice(2);
const ask = (method, params) =>
  new Promise((resolve) => {
    let reply = '';
    const socket = net.createConnection(path, () => socket.end(JSON.stringify({ method, params })));
    socket.setEncoding('utf8');
    socket.on('data', (text) => (reply += text));
    socket.on('error', (error) => resolve({ error: `socket: ${error.code}` }));
    socket.on('end', () => resolve(reply ? JSON.parse(reply) : { error: 'socket: nothing' }));
  });
const must = (condition, what) => {
  if (!condition) throw new Error(what);
};

// Whole characters of all lengths in UTF-8, controls and quotes among them, `size` bytes in all.
const PIECES = ['a', '"', '\\', '\n', '\u0000', '\u001f', '\u007f', 'é', '\u2028', '漢', '😀', '\u{10ffff}'];
const text = (size) => {
  let out = '';
  for (let left = size; left > 0; ) {
    const piece = PIECES[crypto.randomInt(PIECES.length)];
    const length = Buffer.byteLength(piece);
    out += length <= left ? piece : 'x';
    left -= length <= left ? length : 1;
  }
  return out;
};
// The edges first, then whatever comes; a message must fit into two layers of NIP-44.
const size = (i, most) => [1, 2, 31, 32, 33, 255, 256, 257, most - 1, most][i] ?? crypto.randomInt(1, most + 1);

async function cross(count) {
  const { pubkey } = await ask('get_public_key');
  const counts = { nip44: 0, nip04: 0, dm: 0 };
  for (let i = 0; i < Number(count); i++) {
    const secret = generateSecretKey();
    const peer = getPublicKey(secret);
    const conversation = nip44.getConversationKey(secret, pubkey);
    const plain = text(size(i, 65535));

    const there = await ask('nip44_encrypt', { plaintext: plain, peer_pubkey: peer });
    must(nip44.decrypt(there.result, conversation) === plain, `nip44 there: ${there.error}`);
    const back = await ask('nip44_decrypt', { ciphertext: nip44.encrypt(plain, conversation), peer_pubkey: peer });
    must(back.result === plain, `nip44 back: ${back.error}`);
    counts.nip44++;

    const old = await ask('nip04_encrypt', { plaintext: plain, recipientPubkey: peer });
    must((await nip04.decrypt(secret, pubkey, old.ciphertext)) === plain, `nip04 there: ${old.error}`);
    const older = await ask('nip04_decrypt', { ciphertext: await nip04.encrypt(secret, pubkey, plain), senderPubkey: peer });
    must(older.plaintext === plain, `nip04 back: ${older.error}`);
    counts.nip04++;

    const message = text(size(i, 4000));
    const sent = await ask('wrap_dm', {
      recipientPubkey: peer,
      message,
      conversationTitle: 'a title',
      replyTo: { eventId: 'ab'.repeat(32), relayUrl: 'wss://relay.example' },
    });
    must(sent.events && sent.events.every(verifyEvent), `wrap: ${sent.error}`);
    const [own, theirs] = sent.events;
    must(own.pubkey !== theirs.pubkey && ![own, theirs].some((e) => e.pubkey === pubkey), 'a key for each wrap');
    const rumor = nip59.unwrapEvent(theirs, secret);
    must(rumor.content === message && rumor.pubkey === pubkey && rumor.kind === 14, 'the rumor there');
    must(rumor.id === getEventHash(rumor), "the rumor's id");
    const tags = JSON.stringify(rumor.tags);
    must(tags.startsWith(`[["p","${peer}"],["e","${'ab'.repeat(32)}","wss://relay.example"`), tags);
    must(tags.endsWith('["subject","a title"]]'), tags);
    const now = Math.floor(Date.now() / 1000);
    for (const e of [own, theirs]) must(e.created_at <= now + 1 && e.created_at > now - 2 * 86400 - 5, 'a fuzzed time');
    const ownAgain = await ask('unwrap_gift_wrap', { event: own });
    must(ownAgain.rumor && ownAgain.rumor.id === rumor.id, `both copies carry one rumor: ${ownAgain.error}`);
    const received = await ask('unwrap_gift_wrap', {
      event: nip17.wrapEvent(secret, { publicKey: pubkey }, message, 'a title', { eventId: 'cd'.repeat(32) }),
    });
    must(received.rumor && received.rumor.content === message, `unwrap: ${received.error}`);
    must(received.rumor.pubkey === peer && received.rumor.sig === undefined, 'the rumor back');
    counts.dm++;
  }
  return counts;
}

// One wrap, layer by layer, each of which can be changed on the way.
function layers(pubkey, change = {}) {
  const secret = generateSecretKey();
  const once = generateSecretKey();
  const now = Math.floor(Date.now() / 1000);
  const own = (event, key) => ({ created_at: now, tags: [], ...event, pubkey: getPublicKey(key) });
  let rumor = own({ kind: 14, content: 'SECRET hello', tags: [['p', pubkey]] }, secret);
  rumor.id = getEventHash(rumor);
  rumor = change.rumor?.(rumor, secret) ?? rumor;
  const inner = typeof rumor === 'string' ? rumor : JSON.stringify(rumor);
  const sealed = nip44.encrypt(inner, nip44.getConversationKey(secret, pubkey));
  let seal = finalizeEvent({ kind: change.sealKind ?? 13, content: sealed, tags: [], created_at: now }, secret);
  seal = change.seal?.(JSON.parse(JSON.stringify(seal)), secret) ?? seal;
  const outer = typeof seal === 'string' ? seal : JSON.stringify(seal);
  const content = nip44.encrypt(outer, nip44.getConversationKey(once, change.to ?? pubkey));
  const wrap = finalizeEvent({ kind: change.kind ?? 1059, content, tags: [['p', pubkey]], created_at: now }, once);
  return change.wrap?.(JSON.parse(JSON.stringify(wrap)), once) ?? JSON.parse(JSON.stringify(wrap));
}

const victim = getPublicKey(generateSecretKey());
const flipped = (hex) => (hex[0] === '0' ? '1' : '0') + hex.slice(1);
const FORGERIES = {
  genuine: {},
  'another author': {
    rumor: (r) => {
      r.pubkey = victim;
      return { ...r, id: getEventHash(r) };
    },
  },
  'a seal in the name of another': { seal: (s) => ({ ...s, pubkey: victim }) },
  'a seal with a bad signature': { seal: (s) => ({ ...s, sig: flipped(s.sig) }) },
  'an unsigned seal': { seal: ({ sig, ...s }) => s },
  'a seal with another id': { seal: (s) => ({ ...s, id: flipped(s.id) }) },
  'a seal of kind 14': { sealKind: 14 },
  'a rumor with a wrong id': { rumor: (r) => ({ ...r, id: flipped(r.id) }) },
  'a rumor that is no JSON': { rumor: () => 'SECRET not JSON' },
  'a seal that is no JSON': { seal: () => 'SECRET not JSON' },
  'an unsigned wrap': { wrap: ({ sig, ...w }) => w },
  'a wrap with a bad signature': { wrap: (w) => ({ ...w, sig: flipped(w.sig) }) },
  'a wrap of kind 1': { kind: 1 },
  'a wrap for another': { to: victim },
  'a wrap that was altered': { wrap: (w) => ({ ...w, content: w.content.replace(/.(?=.{20}$)/, (c) => (c === 'A' ? 'B' : 'A')) }) },
};

async function forge(...names) {
  const { pubkey } = await ask('get_public_key');
  const answers = {};
  for (const [name, change] of Object.entries(FORGERIES).filter(([name]) => !names.length || names.includes(name))) {
    answers[name] = await ask('unwrap_gift_wrap', { event: layers(pubkey, change) });
  }
  return answers;
}

async function backlog(genuine, junk) {
  const { pubkey } = await ask('get_public_key');
  const wraps = [];
  for (let i = 0; i < Number(genuine); i++) wraps.push({ genuine: true, event: layers(pubkey) });
  const kinds = [{ to: victim }, FORGERIES['another author'], FORGERIES['a wrap with a bad signature'], { to: victim }];
  for (let i = 0; i < Number(junk); i++) wraps.push({ genuine: false, event: layers(pubkey, kinds[i % kinds.length]) });
  wraps.sort((a, b) => (a.event.id < b.event.id ? -1 : 1));
  const counts = { opened: 0, refused: 0, wrong: [] };
  await Promise.all(
    wraps.map(async ({ genuine, event }) => {
      const reply = await ask('unwrap_gift_wrap', { event });
      if (genuine && reply.rumor?.content === 'SECRET hello') counts.opened++;
      else if (!genuine && /^Unwrap failed: /.test(reply.error)) counts.refused++;
      else counts.wrong.push(`${genuine}: ${JSON.stringify(reply)}`);
    }),
  );
  return counts;
}

({ cross, forge, backlog })[command](...args).then((result) => console.log(JSON.stringify(result)));
