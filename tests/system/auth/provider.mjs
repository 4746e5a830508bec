// An OpenID Connect provider: provider.mjs MODULES PORT PAIR.pem KEYS.json. It issues JWTs to its one client.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";

const [modules, port, pair, keys] = process.argv.slice(2);
const { default: Provider } = await import(`${modules}/oidc-provider/lib/index.js`);

const resource = { scope: "", audience: "mcp", accessTokenFormat: "jwt", jwt: { sign: { alg: "ES256" } } };
const provider = new Provider(`https://localhost:${port}`, {
  clients: [
    { client_id: "ci", client_secret: "open-sesame", grant_types: ["client_credentials"], redirect_uris: [], response_types: [], id_token_signed_response_alg: "ES256" },
  ],
  jwks: JSON.parse(readFileSync(keys)),
  extraTokenClaims: () => ({ groups: ["staff"] }),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "urn:mcp",
      getResourceServerInfo: () => resource,
      useGrantedResource: () => true,
    },
  },
});
const pem = readFileSync(pair);
createServer({ key: pem, cert: pem }, provider.callback()).listen(Number(port), "127.0.0.1", () => console.log("ready"));
