// One session with a served instance by an official TypeScript client; prints what it saw as one JSON document.
// Usage: node session.mjs client|sdk <url of /mcp> <key>
const [which, url, key] = process.argv.slice(2);
const clients = {
  // The line for the revision of 2026, which falls back to the handshake by itself.
  client: async () => {
    const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
    const options = { versionNegotiation: { mode: "auto" } };
    return [new Client({ name: "ts-client", version: "2" }, options), StreamableHTTPClientTransport];
  },
  // The line for the revisions with a handshake.
  sdk: async () => {
    const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
    const transport = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
    return [new Client({ name: "ts-sdk", version: "1" }), transport.StreamableHTTPClientTransport];
  },
};

const [client, Transport] = await clients[which]();
const headers = { Authorization: `Bearer ${key}` };
await client.connect(new Transport(new URL(url), { requestInit: { headers } }));

const call = async (name, args) => {
  const result = await client.callTool({ name, arguments: args });
  return { isError: Boolean(result.isError), structured: result.structuredContent, text: result.content[0].text };
};
const seen = {
  server: client.getServerVersion()?.name,
  version: client.getNegotiatedProtocolVersion?.(),
  instructions: client.getInstructions(),
  tools: (await client.listTools()).tools.map((tool) => tool.name),
  added: await call("add_memory", { text: "Alice prefers tea", user_id: "alice", infer: false }),
  found: await call("search_memories", { query: "what does she drink?", filters: { user_id: "alice" } }),
  context: await call("get_user_context", { query: "drinks", user_id: "alice" }),
  wrong: await call("search_memories", { query: " " }),
};
const resource = (await client.listResources()).resources[0];
seen.resource = (await client.readResource({ uri: resource.uri })).contents[0].text;
seen.prompt = (await client.getPrompt({ name: "use_memory_well", arguments: {} })).messages[0].content.text;
await client.close();
console.log(JSON.stringify(seen));
