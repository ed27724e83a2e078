"""What the API says of itself at /openapi.json: the parts that its end points share; theirs are in their docstrings."""

from typing import Any

from starlette.schemas import SchemaGenerator

from zssbir_cli import __version__

REFUSED = {
    "description": "Why not, in one line.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refused"}}},
}
HIT = {
    "type": "object",
    "properties": {
        "rank": {"type": "integer", "minimum": 1},
        "score": {"type": "number", "description": "Cosine of the query and the photo, -1 to 1."},
        "id": {"type": "integer", "minimum": 0, "description": "Its number for /photo/{id}."},
        "source": {"type": "string", "description": "The photo's file, relative to the gallery."},
        "class": {"type": "string", "description": "Its class; empty where none is known."},
        "mask": {"type": "boolean", "description": "Present and true where /photo/{id}/mask shows a mask."},
    },
    "required": ["rank", "score", "id", "source", "class"],
    "additionalProperties": False,
}
FOUND = {
    "type": "object",
    "properties": {
        "hits": {"type": "array", "items": {"$ref": "#/components/schemas/Hit"}},
        "version": {"type": "string", "description": "Of the gallery, for /photo/{id}?v="},
        "note": {"type": "string", "description": "Why there are no hits."},
    },
    "required": ["hits", "version"],
    "additionalProperties": False,
}
HEALTH = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["ok"]},
        "photos": {"type": "integer", "minimum": 0},
        "problem": {"type": "string", "description": "Why a renewed gallery file is not used."},
    },
    "required": ["status", "photos"],
    "additionalProperties": False,
}


def described(token: bool) -> SchemaGenerator:
    """Makes the description; `token`: whether clients have to send one."""
    components: dict[str, Any] = {
        "schemas": {
            "Found": FOUND,
            "Hit": HIT,
            "Health": HEALTH,
            "Refused": {
                "type": "object",
                "properties": {"detail": {"type": "string"}},
                "required": ["detail"],
                "additionalProperties": False,
            },
        },
        "responses": {"Refused": REFUSED},
    }
    base: dict[str, Any] = {
        "openapi": "3.0.3",
        "info": {"title": "zssbir draw: search photos by drawing", "version": __version__},
        "components": components,
    }
    if token:
        components["securitySchemes"] = {
            "header": {"type": "http", "scheme": "bearer"},
            "query": {"type": "apiKey", "in": "query", "name": "token"},
        }
        base["security"] = [{"header": []}, {"query": []}]
    return SchemaGenerator(base)
