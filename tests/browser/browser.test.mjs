// The page in a real browser, against the real stack. There is one process, one stack and one
// browser. Scenarios run one after the other, each in its own profiles.

import "./scenarios/search.mjs";
import "./scenarios/create.mjs";
import "./scenarios/lying-gateway.mjs";
import "./scenarios/signing.mjs";
import "./scenarios/same-signature.mjs";
import "./scenarios/unlocking.mjs";
import "./scenarios/locks.mjs";
import "./scenarios/inbox.mjs";
import "./scenarios/interruptions.mjs";
import "./scenarios/tabs.mjs";
import "./scenarios/backup.mjs";
import "./scenarios/ways-back.mjs";
import "./scenarios/views.mjs";
import "./scenarios/keyboard.mjs";
import "./scenarios/steadiness.mjs";
import "./scenarios/examples.mjs";
import "./scenarios/adapters.mjs";
