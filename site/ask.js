// Asks the site's own search, as its page does: ask.js SEARCH.js search.json WORD…, and where each word's hits are.
const fs = require("fs");
const [search, index, ...words] = process.argv.slice(2);

let answered;
globalThis.self = { postMessage: (message) => answered(message) };
require("vm").runInThisContext(fs.readFileSync(search, "utf8"));

const send = (type, data) =>
  new Promise((resolve) => {
    answered = resolve;
    self.onmessage({ data: { type, data } });
  });

(async () => {
  const site = JSON.parse(fs.readFileSync(index, "utf8"));
  await send(0, site);
  const hits = {};
  for (const word of words) {
    const { data } = await send(2, { input: word });
    hits[word] = data.items.map(({ id }) => site.items[id].location);
  }
  process.stdout.write(JSON.stringify(hits));
})();
