# Run it: python examples/python/django_app.py runserver 8000

import os

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from ratelimit import Limiter, Policy
from ratelimit.wsgi import RateLimitMiddleware

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    WSGI_APPLICATION=f"{__name__}.application",
)
policy = Policy.from_file("examples/policies/starter.yaml")
limiter = Limiter(os.environ.get("RATELIMIT_REDIS", "embedded://"), policy, deadline=1.0)
pepper = os.environ["RATELIMIT_KEY_PEPPER"]


def hello(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"remaining": request.environ["ratelimit.decision"].limits[0].remaining})


def health(_: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "ok"})


urlpatterns = [path("", hello), path("health", health)]

# In a project, this line goes into wsgi.py.
application = RateLimitMiddleware(
    get_wsgi_application(), limiter, key="X-Api-Key", pepper=pepper, exclude=["/health"]
)

if __name__ == "__main__":
    execute_from_command_line()
