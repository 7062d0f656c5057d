from joulemap.datasets import NetworkSpec
from joulemap.models import AutoPredictor, Predictor
from joulemap.models.testing import PredictorContract


class TestAuto(PredictorContract):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return AutoPredictor(spec, candidates=["flops", "bilinear"])
