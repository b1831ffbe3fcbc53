"""The server and its client need neither torch nor anything else of the training stack."""

import subprocess
import sys

SCRIPT = """
import sys

TRAINING = {"torch", "onnx", "onnxscript", "accelerate", "safetensors", "matplotlib", "wandb"}
EXTRAS = {*TRAINING, "openvino", "highdicom", "model_signing"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)

sys.meta_path.insert(0, Blocker())

from fastapi.testclient import TestClient
from attunet.export.serve import Client
from attunet.export.serve.app import make_app
from attunet.export.serve.scans.private_folder import PrivateFolder
from attunet.export.serve.service import Service
from attunet.export.serve.settings import Settings
from attunet.export.serve.work.served_model import load_models

model, scan = sys.argv[1:]
with PrivateFolder() as folder:
    service = Service(Settings(), load_models([model], num_threads=1), folder)
    with TestClient(make_app(service), base_url="http://localhost") as client:
        answer = client.post("/v1/models/small/segment", content=open(scan, "rb").read())
assert answer.status_code == 200, answer.text
assert not EXTRAS & set(sys.modules), EXTRAS & set(sys.modules)
sys.stdout.buffer.write(answer.content)
"""


def test_a_scan_is_served_where_torch_cannot_be_imported(artefact, scan, predicted):
    done = subprocess.run([sys.executable, "-c", SCRIPT, artefact, scan], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == predicted
