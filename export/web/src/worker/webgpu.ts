import * as ort from "onnxruntime-web/webgpu";
import { work } from "./segment";

work(ort, "webgpu");
