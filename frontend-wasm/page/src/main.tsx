// First: takes secrets out of the address bar.
import "./state/admission";

import { render } from "preact";

import { App } from "./app";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/shell.css";
import "./styles/controls.css";
import "./styles/parts.css";
import "./styles/signing.css";
import "./styles/views.css";

const root = document.getElementById("root");
if (root) {
  root.replaceChildren();
  render(<App />, root);
}
