// An application without the view, which must not carry it.

import { load } from "mha";

load().then((mha) => (globalThis.answer = mha.version));
