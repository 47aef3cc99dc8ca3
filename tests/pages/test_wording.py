"""The words of meters, limits, money and alerts on the account's pages."""

from api.pages.account import wording
from billing.standing.words import money


def test_alerts_and_limits_in_words() -> None:
    data = {"kind": "allowance", "meter": "input_tokens", "window": "period", "level": 80, "limit": 500_000}
    say = wording.alert
    assert say("usage.threshold_reached", data) == "80 % used of the allowance of 5,00,000 input tokens"
    one = data | {"kind": "limit", "user_id": "x", "meter": "spend", "window": "day", "limit": 2_500_000}
    assert say("usage.threshold_reached", one) == "80 % used of a user's budget for model usage a day"
    ceiling = data | {"kind": "ceiling", "meter": "charge", "limit": 500_000}
    assert say("usage.threshold_reached", ceiling) == "80 % used of the ceiling of ₹5,000 of overage"
    assert wording.bound("requests", "minute", 60) == "60 requests a minute"
    allowances = {1_000: "1,000", 999_999: "9,99,999", 3_000_000: "3 million", 2_500_000: "2.5 million"}
    for value, said in allowances.items():
        assert wording.allowance("output_tokens", value) == f"{said} output tokens"
    assert wording.allowance("output_tokens", 2_550_000) == "25,50,000 output tokens"
    assert wording.allowance("spend", 5_000_000) == "$5.00 of model cost"
    assert (money(299_900), money(110_801)) == ("₹2,999", "₹1,108.01")
