// Lets the conformance suite start on Node 20: it imports `globSync`, which came with Node 22, for a command that the
// tests do not use. Load it with `--import`.
import { register } from "node:module";

const shim = `
export * from "node:fs";
export { default } from "node:fs";
export function globSync() { throw new Error("needs Node 22"); }
`;
const hooks = `
export async function resolve(specifier, context, next) {
  if (specifier === "fs" && context.parentURL?.includes("/conformance/dist/")) {
    return { url: "data:text/javascript," + encodeURIComponent(${JSON.stringify(shim)}), shortCircuit: true };
  }
  return next(specifier, context);
}
`;
register("data:text/javascript," + encodeURIComponent(hooks));
