import * as ort from "onnxruntime-web/wasm";
import { work } from "./segment";

work(ort, "wasm");
