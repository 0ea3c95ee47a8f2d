"""What a daemon shows on /metrics, as Prometheus' own parser reads it."""

from prometheus_client.parser import text_string_to_metric_families

from tests.support.wire import Address, http

Labels = tuple[tuple[str, str], ...]


class Scrape:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self.samples: dict[tuple[str, Labels], float] = {}
        for family in self.families:
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert key not in self.samples, f"twice: {key}"
                self.samples[key] = sample.value

    @property
    def names(self) -> set[str]:
        """The names of all samples."""
        return {name for name, _ in self.samples}

    def __call__(self, name: str, **labels: str) -> float:
        """Return one value."""
        return self.samples[name, tuple(sorted(labels.items()))]


async def scrape(address: Address) -> Scrape:
    """Ask ``address`` for its metrics."""
    answer = await http(address, "GET /metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    text = answer.body.decode()
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names)), "the samples of a metric stand together"
    return Scrape(text)
