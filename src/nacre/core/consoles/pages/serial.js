// A guest's serial line. A plain terminal: text, carriage return, backspace and tab are shown, escape sequences only erase or are left out.

const LINES = 2000;
const KEYS = {
    Enter: "\r", Backspace: "\x7f", Tab: "\t", Escape: "\x1b", ArrowUp: "\x1b[A", ArrowDown: "\x1b[B", ArrowRight: "\x1b[C", ArrowLeft: "\x1b[D",
    Home: "\x1b[H", End: "\x1b[F", Insert: "\x1b[2~", Delete: "\x1b[3~", PageUp: "\x1b[5~", PageDown: "\x1b[6~",
};
const ESCAPE = /^\x1b(?:\[([0-?]*)[ -/]*([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()#%][^]|[ -Z\\^-~])/;
const asked = new URLSearchParams(location.search);
const status = document.getElementById("status");
const terminal = document.getElementById("terminal");
const decoder = new TextDecoder(), encoder = new TextEncoder();
const done = document.createTextNode(""), current = document.createTextNode("");
let line = [], column = 0, lines = [], waiting = "", connected = false;

terminal.append(done, current);

function sequence(text) {
    // How much of `text`, which begins with ESC, is one sequence; 0 while its end has not come.
    const found = ESCAPE.exec(text);
    if (!found) return text.length > 64 ? 1 : 0;
    if (found[2] === "K") line.length = found[1] === "" || found[1] === "0" ? Math.min(column, line.length) : 0;
    if (found[2] === "J" && found[1] === "2") { lines = []; line = []; column = 0; }
    if (found[2] === "D") column = Math.max(0, column - (Number(found[1]) || 1));
    if (found[2] === "C") column += Number(found[1]) || 1;
    return found[0].length;
}

function character(text) {
    if (text === "\n") { lines.push(line.join("")); line = []; column = 0; }
    else if (text === "\r") column = 0;
    else if (text === "\b") column = Math.max(0, column - 1);
    else if (text === "\t") column += 8 - column % 8;
    else if (text >= " ") {
        while (line.length < column) line.push(" ");
        line[column++] = text;
    }
}

function show(text) {
    text = waiting + text;
    waiting = "";
    for (let at = 0; at < text.length;) {
        if (text[at] !== "\x1b") { character(text[at++]); continue; }
        const size = sequence(text.slice(at));
        if (!size) { waiting = text.slice(at); break; }
        at += size;
    }
    lines.splice(0, lines.length - LINES);
    done.data = lines.map((each) => each + "\n").join("");
    current.data = line.join("");
    terminal.scrollTop = terminal.scrollHeight;
}

const socket = new WebSocket(`wss://${location.host}/${asked.get("path") ?? ""}`, ["binary"]);
const send = (text) => { if (connected && text) socket.send(encoder.encode(text)); };

socket.binaryType = "arraybuffer";
status.textContent = "Connecting";
socket.addEventListener("open", () => { connected = true; status.textContent = "Connected. Enter shows the prompt again."; terminal.focus(); });
socket.addEventListener("message", (event) => show(decoder.decode(event.data, { stream: true })));
socket.addEventListener("close", () => {
    status.textContent = connected ? "The console has ended." : "The console did not open: its address works once, for ten minutes. Ask for another one.";
    connected = false;
});
terminal.addEventListener("keydown", (event) => {
    if (event.metaKey || event.altKey || event.isComposing || (event.ctrlKey && event.shiftKey)) return;
    let text = KEYS[event.key] ?? (event.key.length === 1 ? event.key : "");
    if (event.ctrlKey) text = /^[a-z@[\\\]^_]$/i.test(event.key) ? String.fromCharCode(event.key.toUpperCase().charCodeAt(0) & 31) : "";
    if (!text) return;
    event.preventDefault();
    send(text);
});
terminal.addEventListener("paste", (event) => { event.preventDefault(); send(event.clipboardData.getData("text").replace(/\r?\n/g, "\r")); });
