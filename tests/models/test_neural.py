from joulemap.datasets import NetworkSpec
from joulemap.models import NeuralPredictor, Predictor
from joulemap.models.testing import PredictorContract


class TestEnsemble(PredictorContract):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return NeuralPredictor(spec, members=2, epochs=40)


class TestEcc(PredictorContract):
    def make(self, spec: NetworkSpec | None = None) -> Predictor:
        return NeuralPredictor(spec, architecture="ecc", epochs=200)
