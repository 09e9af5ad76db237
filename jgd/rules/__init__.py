"""Update rules, one file each or one tight family; all read alike: the formula, the leaf update, the factory."""

from jgd.rules._adam import adam as adam
from jgd.rules._adam import nadam as nadam
from jgd.rules._adamw import adamw as adamw
from jgd.rules._adamw import nadamw as nadamw
from jgd.rules._amsgrad import amsgrad as amsgrad
from jgd.rules._gradient_descent import gradient_descent as gradient_descent
from jgd.rules._lion import lion as lion
from jgd.rules._muon import MuonDimensionNumbers as MuonDimensionNumbers
from jgd.rules._muon import muon as muon
from jgd.rules._newton_schulz import orthogonalize as orthogonalize
from jgd.rules._sgd import sgd as sgd
