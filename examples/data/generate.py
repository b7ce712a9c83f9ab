"""Writes port_larkin.csv: ten years of daily temperatures of a weather station that does not exist.

The data is synthetic. It is made from a slow warming, the seasons, a small wave with the period of spring and neap
tides, and weather: noise that remembers the day before. The same seed gives the same file everywhere.

    python3 examples/data/generate.py
"""

import math
import random
from datetime import date, timedelta
from pathlib import Path

FIRST, LAST = date(2015, 1, 1), date(2024, 12, 31)
MEAN = 10.4  # degrees Celsius, at the start
WARMING = 0.8  # degrees in ten years
SEASONS = 6.6  # half the difference between the warmest and the coldest day
WARMEST = 209  # day of the year: 28 July
DOUBLE = 0.7  # a second wave in each year: springs are longer than autumns
TIDE, TIDE_PERIOD = 0.9, 14.7653  # degrees, days
WEATHER, MEMORY = 2.3, 0.72  # standard deviation in degrees; how much of a day's weather is left on the next
YEAR = 365.2425


def main() -> None:
    chance = random.Random(20240229)
    weather = 0.0
    lines = [
        "# Synthetic: made by generate.py. Port Larkin and its weather station do not exist.",
        "date,mean_temperature_celsius",
    ]
    for day in range((LAST - FIRST).days + 1):
        season = 2 * math.pi * (day + 1 - WARMEST) / YEAR
        weather = MEMORY * weather + chance.gauss(0, WEATHER * math.sqrt(1 - MEMORY**2))
        celsius = (
            MEAN
            + WARMING * day / (10 * YEAR)
            + SEASONS * math.cos(season)
            + DOUBLE * math.sin(2 * season)
            + TIDE * math.sin(2 * math.pi * day / TIDE_PERIOD)
            + weather
        )
        lines.append(f"{FIRST + timedelta(days=day)},{celsius:.1f}")
    Path(__file__).with_name("port_larkin.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
