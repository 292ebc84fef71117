// A guest's screen. Parameters of the address, named as in noVNC's own page: path, password, scale, view_only.

import RFB from "./novnc/core/rfb.js";

const asked = new URLSearchParams(location.search);
const status = document.getElementById("status");
const keys = document.getElementById("keys");
const on = (name) => ["1", "true", "yes"].includes(asked.get(name));
const rfb = new RFB(document.getElementById("screen"), `wss://${location.host}/${asked.get("path") ?? ""}`, {
    credentials: { password: asked.get("password") ?? "" },
});
let name = "the server", connected = false;

status.textContent = "Connecting";
rfb.viewOnly = on("view_only");
rfb.scaleViewport = on("scale");
rfb.addEventListener("desktopname", (event) => { name = document.title = event.detail.name; });
rfb.addEventListener("connect", () => {
    connected = true;
    keys.disabled = false;
    status.textContent = `Connected to ${name}`;
    rfb.focus();
});
rfb.addEventListener("disconnect", () => {
    keys.disabled = true;
    status.textContent = connected ? "The console has ended." : "The console did not open: its address works once, for ten minutes. Ask for another one.";
});
rfb.addEventListener("credentialsrequired", () => rfb.sendCredentials({ password: prompt("Password of the screen") ?? "" }));
keys.addEventListener("click", () => { rfb.sendCtrlAltDel(); rfb.focus(); });
