import * as ort from "onnxruntime-web/webgpu";
import { work } from "./work";

work(ort, "webgpu");
