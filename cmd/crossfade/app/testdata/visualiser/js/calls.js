"use strict";

// Calls asks the scheduler as the visualiser was recorded to: GET for all.
class Calls {
  constructor(base) { this.base = base; }

  async ask(method, data) {
    const query = data === undefined ? "" : "?data=" + encodeURIComponent(JSON.stringify(data));
    const reply = await fetch(this.base + "/" + method + query, {
      headers: { "Accept": "application/json, text/javascript, */*; q=0.01", "X-Requested-With": "XMLHttpRequest" },
    });
    if (!reply.ok) throw new Error(method + ": " + reply.status);
    return (await reply.json()).response;
  }
}

const find = (id) => document.getElementById(id);

// ran is what stored scripts call; refused is what the policy stopped.
const stored = { ran: [], refused: [], tried: 0 };
function ran(what) { stored.ran.push(what); }
document.addEventListener("securitypolicyviolation", (e) => stored.refused.push(e.effectiveDirective));

// show puts a message into the page as HTML, and runs the scripts in it, as
// jQuery's html() does.
function show(message) {
  const place = find("message");
  place.innerHTML = message;
  for (const dead of place.querySelectorAll("script")) {
    const alive = document.createElement("script");
    for (const a of dead.attributes) alive.setAttribute(a.name, a.value);
    alive.textContent = dead.textContent;
    dead.replaceWith(alive);
  }
  stored.tried++;
}

function start(calls) {
  find("page").textContent = "its script runs";
  const task = { task_id: "UsersPipeline_2024_05_01_e0763b9989" };
  const on = (id, act) => find(id).addEventListener("click", act);
  on("pause", async () => { await calls.ask("pause"); find("state").textContent = "paused"; });
  on("unpause", async () => { await calls.ask("unpause"); find("state").textContent = "running"; });
  on("status", async () => show((await calls.ask("get_task_status_message", task)).statusMessage));

  calls.ask("has_task_history", {});
  calls.ask("is_pause_enabled", {});
  calls.ask("resource_list", {});
  calls.ask("task_list", { status: "DONE", upstream_status: "", search: "" }).then((tasks) => {
    find("tasks").textContent = Object.keys(tasks).length;
  });
  calls.ask("is_paused", {}).then((now) => { find("state").textContent = now.paused ? "paused" : "running"; });

  let polls = 0;
  const poll = async () => {
    const row = find("worker-template").textContent;
    const workers = await calls.ask("worker_list", {});
    find("workers").innerHTML = workers.map((w) =>
      row.replace("{{name}}", w.name.replace(/[<&]/g, "?")).replace("{{processes}}", Number(w.workers))).join("");
    find("polls").textContent = ++polls;
    setTimeout(poll, 100);
  };
  poll();
}
