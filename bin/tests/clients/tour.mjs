// A tour of an agent with the package `consul`, unmodified: node tour.mjs PORT. Imported from the working directory.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

const Consul = createRequire(`${process.cwd()}/`)("consul");
const c = new Consul({ host: "127.0.0.1", port: Number(process.argv[2]) });

// Waits for a condition; the limit is only reached when something is broken.
async function waitFor(what, condition) {
  for (const deadline = Date.now() + 30_000; ; await sleep(20)) {
    const found = await condition();
    if (found) return found;
    assert(Date.now() < deadline, `not in time: ${what}`);
  }
}

// Collects what a watch shows until something fits.
function watched(options, fits) {
  return new Promise((resolve, reject) => {
    const watch = c.watch({ ...options, backoffFactor: 50 });
    const limit = setTimeout(() => { watch.end(); reject(new Error("the watch showed nothing that fits")); }, 30_000);
    const end = (settle, value) => { clearTimeout(limit); watch.end(); settle(value); };
    watch.on("change", (data) => { if (fits(data)) end(resolve, data); });
    watch.on("error", (error) => end(reject, error));
  });
}

const parts = {
  async keys() {
    assert.equal(await c.kv.set({ key: "tour/a", value: "one", flags: 7 }), true);
    const found = await c.kv.get("tour/a");
    assert.equal(found.Value, "one");
    assert.equal(found.Flags, 7);
    assert.equal(await c.kv.set({ key: "tour/a", value: "two", cas: found.ModifyIndex }), true);
    // This client makes nothing of a plain false.
    assert(!(await c.kv.set({ key: "tour/a", value: "three", cas: found.ModifyIndex })));
    await c.kv.set("tour/dir/b", "b");
    assert.deepEqual(await c.kv.keys("tour/"), ["tour/a", "tour/dir/b"]);
    assert.deepEqual(await c.kv.keys({ key: "tour/", separator: "/" }), ["tour/a", "tour/dir/"]);
    assert.equal((await c.kv.get({ key: "tour/", recurse: true })).length, 2);
    const bytes = Buffer.from([0, 255, 1, 254]);
    await c.kv.set("tour/bytes", bytes);
    assert.deepEqual(await c.kv.get({ key: "tour/bytes", buffer: true }).then((one) => one.Value), bytes);
    assert.equal(await c.kv.get("tour/none"), undefined);
    await c.kv.del({ key: "tour/", recurse: true });
    assert.equal(await c.kv.get("tour/a"), undefined);
  },

  async watches() {
    const key = watched({ method: c.kv.get, options: { key: "watched", wait: "5s" } }, (one) => one?.Value === "there");
    await c.kv.set("elsewhere", "x");
    await c.kv.set("watched", "there");
    await key;
    const healthy = (list) => list.some((one) => one.Service.ID === "late-1");
    const service = watched(
      { method: c.health.service, options: { service: "late", passing: true, wait: "5s" } }, healthy);
    await c.agent.service.register({ name: "late", id: "late-1", port: 1 });
    await service;
    await c.agent.service.deregister("late-1");
  },

  async services() {
    await c.agent.service.register({
      name: "web", id: "web-1", port: 8080, tags: ["v1"], check: { ttl: "10m", notes: "by hand" },
    });
    assert.equal((await c.agent.service.list())["web-1"].Port, 8080);
    const passing = () => c.health.service({ service: "web", passing: true });
    await waitFor("the catalog has it", async () => (await c.catalog.service.nodes("web")).length === 1);
    assert.equal((await passing()).length, 0);
    await c.agent.check.pass({ id: "service:web-1", note: "fine" });
    await waitFor("it passes", async () => (await passing()).length === 1);
    await c.agent.check.fail("service:web-1");
    await waitFor("it is critical", async () => (await c.health.checks("web"))[0].Status === "critical");
    await c.agent.service.maintenance({ id: "web-1", enable: true, reason: "tour" });
    await c.agent.service.maintenance({ id: "web-1", enable: false });
    assert("web" in (await c.catalog.services()));
    await c.agent.check.register({ name: "alone", id: "alone", ttl: "10m" });
    assert.equal((await c.agent.checks()).alone.Status, "critical");
    await c.agent.check.deregister("alone");
    await c.agent.service.deregister("web-1");
    await waitFor("the catalog has it no more", async () => (await c.catalog.service.nodes("web")).length === 0);
  },

  async locks() {
    const create = async (name) => (await c.session.create({ name, ttl: "60s", lockdelay: "0s" })).ID;
    const [mine, other] = [await create("mine"), await create("other")];
    assert.equal(await c.kv.set({ key: "lock", value: "me", acquire: mine }), true);
    assert(!(await c.kv.set({ key: "lock", value: "you", acquire: other })));
    assert.equal((await c.kv.get("lock")).Session, mine);
    assert.equal((await c.session.renew(mine))[0].TTL, "60s");
    const freed = watched({ method: c.kv.get, options: { key: "lock", wait: "5s" } }, (one) => !one.Session);
    await c.session.destroy(mine);
    await freed;
    assert.equal(await c.kv.set({ key: "lock", value: "you", acquire: other }), true);
    assert.equal(await c.kv.set({ key: "lock", value: "", release: other }), true);
    assert.equal((await c.session.get(other)).Name, "other");
    await c.session.destroy(other);
  },

  async transactions() {
    const text = (value) => Buffer.from(value).toString("base64");
    const kv = (Verb, Key, more) => ({ KV: { Verb, Key, ...more } });
    const done = await c.transaction.create(
      [kv("set", "txn/a", { Value: text("1") }), kv("get", "txn/a")]);
    assert.equal(done.Results[1].KV.Value, text("1"));
    await assert.rejects(
      c.transaction.create([kv("set", "txn/a", { Value: text("2") }), kv("check-session", "txn/a", { Session: "x" })]),
      (error) => error.response.statusCode === 409);
    assert.equal((await c.kv.get("txn/a")).Value, "1");
  },

  async others() {
    assert(await c.status.leader());
    assert.equal((await c.status.peers()).length, 1);
    const { Config } = await c.agent.self();
    assert.equal((await c.catalog.node.list())[0].Node, Config.NodeName);
    assert.equal((await c.agent.members()).length, 1);
    const { ID } = await c.event.fire("deploy", "now");
    await waitFor("the event", async () => (await c.event.list("deploy")).some((event) => event.ID === ID));
    const query = await c.query.create({ name: "q", service: { service: "consul" } });
    assert.equal((await c.query.execute("q")).Nodes.length, 1);
    await c.query.destroy(query.ID);
  },
};

for (const [name, part] of Object.entries(parts)) {
  await part();
  console.log(name);
}
