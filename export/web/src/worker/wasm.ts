import * as ort from "onnxruntime-web/wasm";
import { work } from "./work";

work(ort, "wasm");
