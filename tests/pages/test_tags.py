"""Usage by tag on the pages, down to the requests, and the account's page of tags."""

import pytest

from tests.api.conftest import Api
from tests.api.routes.test_tags import tagging_admin
from tests.harness import Account
from tests.metering.rows import today
from tests.pages.conftest import SignIn, submit


@pytest.fixture
async def admin(api: Api) -> Account:
    """A tenant's admin after three requests, two with a feature."""
    return await tagging_admin(api)


@pytest.mark.slow
async def test_the_pages_show_usage_by_tag_down_to_the_requests(api: Api, admin: Account, sign_in: SignIn) -> None:
    browser = await sign_in(admin)
    await api.call(admin, "PUT", f"/tenants/{admin.tenant_id}/tag-keys/feature", json={}, expect=200)
    page = (await browser.get("/reports", params={"group_by": "tag:feature"})).text
    assert "By feature" in page
    assert "By conversation" in page
    assert "Without this tag" in page
    assert "theirs" not in page
    day = {"from": str(today()), "to": str(today())}
    page = (await browser.get("/reports", params=day | {"group_by": "tag:feature"})).text
    assert f"/reports/requests?from={today()}&amp;to={today()}&amp;tag=feature%3Dsearch" in page
    listed = (await browser.get("/reports/requests", params=day | {"tag": "feature=search"})).text
    assert listed.count('href="/reports/requests/0') == 1
    assert "<strong>feature=search</strong>" in listed
    request_id = listed.partition('href="/reports/requests/0')[2].partition('"')[0]
    assert "conversation=c-1" in (await browser.get(f"/reports/requests/0{request_id}")).text
    by_day = await browser.get("/reports", params={"tag": "feature=search"})
    assert by_day.status_code == 200
    assert "By user" not in by_day.text
    for wrong in (
        {"group_by": "tag:feature", "user_id": str(admin.user_id)},
        {"group_by": "user", "tag": "feature=search"},
        {"group_by": "tag:Wrong"},
        {"tag": "nothing"},
    ):
        assert (await browser.get("/reports", params=wrong)).status_code == 422, wrong


async def test_a_tenant_declares_tags_on_its_page(admin: Account, sign_in: SignIn) -> None:
    browser = await sign_in(admin)
    done = await browser.post("/account/tags", data={"key": "feature", "max_values": "50"})
    assert done.headers["location"] == "/account/tags?said=set"
    page = (await browser.get("/account/tags")).text
    assert 'href="/reports?group_by=tag:feature"' in page
    for wrong in ({"key": "Feature"}, {"key": "feature", "max_values": "many"}):
        refused = await submit(browser, "/account/tags", wrong)
        assert refused.status_code == 422
        assert 'aria-invalid="true"' in refused.text
    done = await browser.post("/account/tags/remove", data={"key": "feature"})
    assert done.headers["location"] == "/account/tags?said=removed"
    assert "group_by=tag:feature" not in (await browser.get("/account/tags")).text
