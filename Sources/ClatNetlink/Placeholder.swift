import ClatBase
