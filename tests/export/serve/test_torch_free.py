"""The server needs nothing of the training stack."""

EXTRAS = {"torch", "onnx", "onnxscript", "accelerate", "safetensors", "matplotlib", "wandb"}
SCRIPT = """
from fastapi.testclient import TestClient
from attunet.export.serve import Client
from attunet.export.serve.app import make_app
from attunet.system.private_folder import PrivateFolder
from attunet.export.serve.service import Service
from attunet.export.serve.settings import Settings
from attunet.export.serve.work.served_model import load_models

model, scan = sys.argv[1:]
with PrivateFolder() as folder:
    service = Service(Settings(), load_models([model], num_threads=1), folder)
    with TestClient(make_app(service), base_url="http://localhost") as client:
        answer = client.post("/v1/models/small/segment", content=open(scan, "rb").read())
assert answer.status_code == 200, answer.text
sys.stdout.buffer.write(answer.content)
"""


def test_a_scan_is_served_where_torch_cannot_be_imported(run_without, artefact, scan, predicted):
    assert run_without({*EXTRAS, "openvino", "highdicom", "model_signing"}, SCRIPT, artefact, scan) == predicted
