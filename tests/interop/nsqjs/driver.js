// nsqjs plays the scenarios of ../README.md. Arguments: lookupd's HTTP address, the topic, the layers if there are any.
// It has no setting for the root to trust: NODE_EXTRA_CA_CERTS names it.
const {once} = require('events')
const {readFileSync} = require('fs')
const {setTimeout: sleep} = require('timers/promises')
const {Reader, Writer} = require('nsqjs')

const CHANNEL = 'conformance'
const MSG_TIMEOUT_MS = 1000
const HEARTBEAT_S = 1
const MAX_IN_FLIGHT = 10
const DELAY_MS = 500
const TOUCHES = 3
const TOUCH_EVERY_MS = 400
const SECRET = process.env.AUTH_SECRET || null

const [lookupd, topic, words] = process.argv.slice(2)
const layers = words && layersIn(JSON.parse(words))
const finished = new Map() // body -> the resolver of its promise
let timedOut = null
let writer = null

// Tells the test what happens, one JSON line each; at_ms is a monotonic clock of this process.
function emit(what, body = '', attempts = 0) {
  const atMs = Math.floor(performance.now())
  process.stdout.write(JSON.stringify({what, body, attempts, at_ms: atMs}) + '\n')
}

// What stands between client and node, in nsqjs's words.
function layersIn({compression, root, cert, key}) {
  const tls = root && {tls: true, cert: readFileSync(cert), key: readFileSync(key)}
  return {snappy: compression === 'snappy', deflate: compression === 'deflate', ...tls}
}

async function handle(message) {
  const body = message.body.toString()
  const first = message.attempts === 1
  emit('delivered', body, message.attempts)
  if (body === 'requeue' && first) {
    emit('requeuing', body, message.attempts)
    message.requeue(DELAY_MS, false)
    return
  }
  if (body === 'timeout' && first) {
    timedOut = message
    return
  }
  if (body === 'touch') {
    for (let i = 0; i < TOUCHES; i++) {
      await sleep(TOUCH_EVERY_MS)
      message.touch()
    }
    await sleep(TOUCH_EVERY_MS)
  }
  message.finish()
  if (body === 'timeout') {
    timedOut.finish() // too late: E_FIN_FAILED, and the connection must live on
  }
  emit('finished', body, message.attempts)
  finished.get(body)()
}

// A Writer does not reconnect by itself: its user calls connect() again, here until it is ready.
async function connectWriter(host, port) {
  for (;;) {
    const attempt = new Writer(host, port, {heartbeatInterval: HEARTBEAT_S, authSecret: SECRET, ...layers})
    attempt.connect()
    try {
      await once(attempt, Writer.READY)
      attempt.on(Writer.ERROR, (error) => console.error('writer:', error.message))
      return attempt
    } catch (error) {
      console.error('writer:', error.message)
      await sleep(100)
    }
  }
}

const answered = (send) =>
  new Promise((resolve, reject) => send((error) => (error ? reject(error) : resolve())))

async function publishSingly(bodies) {
  for (const body of bodies) {
    await answered((done) => writer.publish(topic, body, done))
  }
}
const publishMany = (bodies) => answered((done) => writer.publish(topic, bodies, done))
const publishDeferred = (bodies) => answered((done) => writer.deferPublish(topic, bodies, DELAY_MS, done))

// Publishes bodies and waits until every one of them is finished.
async function step(publish, bodies) {
  const waiting = bodies.map((body) => new Promise((resolve) => finished.set(body, resolve)))
  bodies.forEach((body) => emit('publishing', body))
  await publish(bodies)
  await Promise.all(waiting)
}

// Asks lookupd which node has the topic.
async function findNode() {
  const answer = await fetch(`http://${lookupd}/lookup?topic=${topic}`)
  const {producers} = await answer.json()
  return producers[0]
}

const numbered = (name, count) => Array.from({length: count}, (_, i) => `${name}-${i}`)

async function main() {
  const node = await findNode()
  const reader = new Reader(topic, CHANNEL, {
    lookupdHTTPAddresses: [lookupd],
    lookupdPollInterval: 1,
    maxInFlight: MAX_IN_FLIGHT,
    messageTimeout: MSG_TIMEOUT_MS,
    heartbeatInterval: HEARTBEAT_S,
    authSecret: SECRET,
    ...layers,
  })
  reader.on(Reader.MESSAGE, handle)
  reader.on(Reader.ERROR, (error) => console.error('reader:', error.message))
  reader.connect()
  writer = await connectWriter(node.broadcast_address, node.tcp_port)

  await step(publishSingly, numbered('single', 10))
  await step(publishMany, numbered('batch', 25))
  if (layers) {
    await step(publishMany, [0, 1, 2].map((i) => `large-${i}` + 'x'.repeat(50000)))
    emit('connected')
    await once(process.stdin, 'data')
    process.stdin.destroy()
    reader.close()
    writer.close()
    return
  }
  await step(publishDeferred, ['deferred'])
  for (const body of ['requeue', 'timeout', 'touch']) {
    await step(publishSingly, [body])
  }

  emit('restart')
  await once(process.stdin, 'data')
  writer = await connectWriter(node.broadcast_address, node.tcp_port)
  await step(publishSingly, numbered('after', 5))
  process.stdin.destroy()
  reader.close()
  writer.close()
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
