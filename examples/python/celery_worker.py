# Run it: celery --workdir examples/python --app celery_worker worker --loglevel info

import os

from celery import Celery, Task

from ratelimit import Limit, Limiter

app = Celery("celery_worker", broker="redis://localhost:6379")  # CELERY_BROKER_URL goes before it

# Made before the worker forks: each process gets connections of its own.
limiter = Limiter(
    os.environ.get("RATELIMIT_REDIS", "redis://localhost:6379"),
    Limit("mails", "60/minute", burst=5),
    deadline=1.0,
)


@app.task(bind=True, max_retries=None)
def send_mail(self: Task, tenant: str, number: int) -> None:
    decision = limiter.check(tenant)
    if not decision:
        raise self.retry(countdown=decision.retry_after)  # the worker takes other tasks meanwhile
    print(f"sent mail {number} of {tenant}")


if __name__ == "__main__":
    for i in range(7):
        send_mail.delay("acme", i)
