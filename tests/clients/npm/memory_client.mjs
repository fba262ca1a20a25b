// Drives Mem0's TypeScript client for a test in another process: JSON lines in, JSON lines out; the same orders as
// the driver of the Python clients takes. Outside hosts are unreachable: what would be asked of one is noted.
import net from "node:net";
import dns from "node:dns";
import readline from "node:readline";

const outside = [];
const local = (host) => host === undefined || host === "localhost" || /^127\./.test(host) || host === "::1";
const refused = (host) => {
  outside.push(String(host));
  return new Error(`outside hosts are unreachable in tests: ${host}`);
};
const lookup = dns.lookup;
dns.lookup = (host, options, callback) => {
  const done = callback ?? options;
  return local(host) ? lookup(host, options, callback) : done(refused(host));
};
const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...args) {
  const options = Array.isArray(args[0]) ? args[0][0] : args[0];
  if (options && typeof options === "object" && !local(options.host)) throw refused(options.host);
  return connect.apply(this, args);
};

// It reports what fails while it starts on the console; standard output is for answers.
console.log = console.error;
const { MemoryClient } = await import("mem0ai");
const clients = {};

const orders = {
  methods: () =>
    Object.getOwnPropertyNames(MemoryClient.prototype)
      .filter((name) => name !== "constructor" && !name.startsWith("_"))
      .sort(),
  outside: () => outside,
  connect: async ({ client, host, key }) => {
    clients[client] = new MemoryClient({ apiKey: key, host });
    await clients[client].ping();
    const { organizationId, projectId } = clients[client];
    return { org_id: organizationId, project_id: projectId, user_email: null };
  },
  header: ({ client, name, value }) => {
    if (value === null) delete clients[client].headers[name];
    else clients[client].headers[name] = value;
    return null;
  },
  call: ({ client, method, args }) => clients[client][method](...args),
};

const told = (error) => {
  const kinds = [];
  for (let one = Object.getPrototypeOf(error); one && one.constructor !== Object; one = Object.getPrototypeOf(one)) {
    kinds.push(one.constructor.name);
  }
  // The classes are assigned to variables, so that only the error itself knows the name it goes by.
  return { kinds: [error.name, ...kinds], message: error.message, code: error.errorCode ?? null, status: null };
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  let answer;
  try {
    answer = { result: (await orders[order.op](order)) ?? null };
  } catch (error) {
    answer = { raised: told(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
