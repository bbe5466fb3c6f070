"""What a router answers, asked in this process."""

import asyncio

import httpx
from fastapi import APIRouter, FastAPI


def answer_of(router: APIRouter, path: str) -> httpx.Response:
    """The answer to a GET."""
    application = FastAPI()
    application.include_router(router)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path)

    return asyncio.run(ask())
