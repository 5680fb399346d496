"""The API's contract around restore sessions, and checks of requests and answers against it.

Knows a hand-written, smaller contract for v4 to v8, and how to read the vendor's documents for v6 to v8
where those are available. Must not know the SDK or the embedded server.
"""

import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import jsonschema

Json = dict[str, Any]

DOCUMENTS = Path(os.environ.get("AIOVBO_OPENAPI") or Path(__file__).parents[3] / "shared" / "openapi")
"""Where the vendor's documents are, which are not part of the project: vb365-v6.json and so on."""
VERSIONS = ["v4", "v5", "v6", "v7", "v8"]

# Property and type; "?" where it may be null, "!" where it must be there; "5:" where it came with v5.
# Source: schemas of the vendor's OpenAPI documents, v6 to v8; help center, v4; read 2026-11-23.
SHAPES = {
    "RestoreSession": """id!uuid type!text creationTime!time state!text result!text endTime?time
        name:text organization:text initiatedBy:text details:text 6:scopeName:text
        6:clientHost:text 6:reason:text 8:eTag:int _links:object""",
    "Event": """id!uuid status!text message!text startTime!time order!int type:text endTime?time duration:text
        title:text itemName:text itemType:text itemSizeBytes:int source:text target:text
        8:organizationId?uuid _links:object""",
    "Statistics": """totalItemsCount!int restoredItemsCount!int failedItemsCount!int skippedItemsCount!int
        warnings:list errors:list items!list""",
    "BackupOrganization": "id:uuid name:text type:text _links:object",
    "Organization": """id?uuid name:text officeName:text type:text region:text isBackedup?bool
        _links:object""",
    "OwnOrganization": "id:text name:text type:text isBackedup:bool",
    "JobSession": """id:uuid 8:jobId:uuid 7:repositoryId:uuid 7:mainSessionId:uuid details?text
        creationTime:time endTime?time retryCount:int 7:jobWillBeRetried?bool progress:int 7:jobType:text
        status:text 8:eTag:int _links:object""",
    "Job": """id?uuid description:text backupType?text schedulePolicy:object 8:organizationId?uuid
        repositoryId?uuid name:text lastRun?time nextRun?time 7:lastBackup?time isEnabled?bool lastStatus?text
        8:eTag:int _links:object""",
    "RestorePoint": """id:text 7:isDeleted:bool repositoryId:uuid backupTime:time jobId:uuid
        organizationId:uuid isExchange:bool isSharePoint:bool isOneDrive:bool isTeams:bool
        isLongTermCopy:bool 7:isCopy:bool isRetrieved:bool 8:eTag:int _links:object""",
    "Health": "status:text entries:object",
    "ChangeEvent": """eventType!text id:text eTag:int organizationId:uuid jobType:text policyId:text
        jobId:text status:text objectsEtag:int""",
    "ServiceInstance": "installationId:uuid version:text",
    "Mailbox": "id:uuid name:text email:text isArchive:bool _links:object",
    "OneDrive": "id:text name:text url:text _links:object",
    "Site": "id:text name:text url:text _links:object",
    "Team": "id!uuid displayName:text groupEmail:text isArchived:bool _links:object",
    "Token": """access_token:text token_type:text refresh_token:text expires_in:int userName:text .issued:text
        .expires:text""",
    "TokenForm": """grant_type!text username:text password:text refresh_token:text client_id:text
        assertion:text 7:disable_antiforgery_token:text""",
    "Explore": "dateTime?time type?kind showDeleted?bool showAllVersions?bool",
    "OldExplore": "explore!object",
    "OldStop": "stop!null",
    "Refusal": "message:text 7:errorCode?text 8:stackTrace?text",
}
_EXTENDED_VIEW = ("/v6/Organizations", "extendedView", "true")
"""What only v6 requires."""

# Versions; method and path; parameters; what is sent; statuses; what comes back
# ("[]": array, "*": page, "~": page of the change feed).
OPERATIONS = """
4-8 POST token                                       -                TokenForm  200 Token
7-7 POST token/logout                                -                -          200 -
8-8 POST token/logout                                -                -          204 -
6-8 GET  ServiceInstance                             -                -          200 ServiceInstance
4-8 GET  RestoreSessions                             sessions         -          200 RestoreSession*
4-8 GET  RestoreSessions/{id}                        -                -          200 RestoreSession
4-8 GET  RestoreSessions/{id}/organization           -                -          200 BackupOrganization
4-8 GET  RestoreSessions/{id}/Events                 page             -          200 Event*
4-8 GET  RestoreSessions/{id}/Events/{event}         -                -          200 Event
8-8 GET  RestoreSessions/{id}/Statistics             -                -          200 Statistics
4-5 POST RestoreSessions/{id}/action                 -                OldStop    200 -
6-7 POST RestoreSessions/{id}/Stop                   -                -          200 -
8-8 POST RestoreSessions/{id}/Stop                   -                -          204 -
4-8 GET  RestoreSessions/{id}/organization/mailboxes page             -          200 Mailbox*
4-8 GET  RestoreSessions/{id}/organization/OneDrives page             -          200 OneDrive*
4-8 GET  RestoreSessions/{id}/organization/Sites     page             -          200 Site*
5-8 GET  RestoreSessions/{id}/organization/teams     page             -          200 Team*
4-5 POST Organization/action                         -                OldExplore 201 RestoreSession
6-7 POST Organization/Explore                        -                Explore    200 RestoreSession
8-8 POST Organization/Explore                        -                Explore    201 RestoreSession
6-7 POST Organization/OperatorExplore                -                Explore    200 RestoreSession
8-8 POST Organization/OperatorExplore                -                Explore    201 RestoreSession
4-5 POST Organizations/{id}/action                   -                OldExplore 201 RestoreSession
6-7 POST Organizations/{id}/explore                  -                Explore    200 RestoreSession
8-8 POST Organizations/{id}/explore                  -                Explore    201 RestoreSession
4-8 GET  Organization                                -                -          200 OwnOrganization
4-5 GET  Organizations                               page             -          200 Organization[]
6-7 GET  Organizations                               -                -          200 Organization[]
8-8 GET  Organizations                               page             -          200 Organization*
4-8 GET  Organizations/{id}                          -                -          200 Organization
4-4 GET  JobSessions                                 page             -          200 JobSession[]
5-8 GET  JobSessions                                 page             -          200 JobSession*
4-7 GET  Jobs                                        -                -          200 Job[]
8-8 GET  Jobs                                        page             -          200 Job*
4-8 GET  Jobs/{id}                                   -                -          200 Job
6-6 GET  RestorePoints                               -                -          200 RestorePoint[]
7-8 GET  RestorePoints                               page             -          200 RestorePoint*
8-8 GET  Health                                      -                -          200 Health
8-8 GET  Events                                      changes          -          200 ChangeEvent~
"""
PARAMETERS = {
    "-": "",
    "page": "limit:int offset:int",
    "changes": "from:text limit:int timeoutSeconds:int",
    "sessions": """limit:int offset:int startTimeFrom:time startTimeTo:time 8:endTimeFrom:time
        8:endTimeTo:time 8:orderAsc:bool 8:orderBy:order""",
}
TYPES: dict[str, Json] = {
    "uuid": {"type": "string", "format": "uuid"},
    "time": {"type": "string", "format": "date-time"},
    "text": {"type": "string"},
    "kind": {"type": "string", "enum": ["Vex", "Veod", "Vesp", "Vet"]},
    "order": {"type": "string", "enum": ["CreationTime", "EndTime"]},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "list": {"type": "array"},
    "null": {"type": "null"},
    "object": {"type": "object"},
}


def _properties(text: str, version: str) -> tuple[Json, list[str]]:
    properties: Json = {}
    required: list[str] = []
    for word in text.split():
        found = re.fullmatch(r"(?:(\d):)?([.\w]+)([:?!])(\w+)", word)
        assert found, word
        since, name, mark, kind = found.groups()
        if int(since or 4) <= int(version[1:]):
            schema = dict(TYPES[kind])
            if mark == "?":
                schema["nullable"] = True
            properties[name] = schema
            if mark == "!":
                required.append(name)
    return properties, required


def _schema(shape: str, version: str) -> Json:
    name = shape.rstrip("[]*~")
    properties, required = _properties(SHAPES[name], version)
    item: Json = {"type": "object", "properties": properties, "required": required}
    if shape.endswith("[]"):
        return {"type": "array", "items": item}
    if shape.endswith("~"):
        page, required = _properties("nextChangeToken!text limit!int setId:uuid _links:object", version)
        page["results"] = {"type": "array", "items": item}
        return {"type": "object", "properties": page, "required": [*required, "results"]}
    if not shape.endswith("*"):
        return item
    page, _ = _properties("offset:int limit:int setId:uuid _links:object", version)
    if version < "v8" or name == "JobSession":
        page["totalCount"] = {"type": "integer", "nullable": True}
    page["results"] = {"type": "array", "items": item}
    return {"type": "object", "properties": page, "required": ["offset", "limit", "results"]}


def _json(schema: Json) -> Json:
    return {"content": {"application/json": {"schema": schema}}}


def our_document(version: str) -> Json:
    """The hand-written contract of one version, as a small OpenAPI document."""
    paths: Json = {}
    for line in OPERATIONS.strip().splitlines():
        versions, method, path, parameters, sent, status, shape = line.split()
        first, last = versions.split("-")
        if not int(first) <= int(version[1:]) <= int(last):
            continue
        names, _ = _properties(PARAMETERS[parameters], version)
        operation: Json = {
            "parameters": [{"in": "query", "name": name, "schema": each} for name, each in names.items()],
            "responses": {status: {}, "default": _json(_schema("Refusal", version))},
        }
        if shape != "-":
            operation["responses"][status] = _json(_schema(shape, version))
        if sent != "-":
            kind = "application/x-www-form-urlencoded" if sent == "TokenForm" else "application/json"
            operation["requestBody"] = {"content": {kind: {"schema": _schema(sent, version)}}}
        paths.setdefault(f"/{version}/{path}", {})[method.lower()] = operation
    return {"paths": paths, "components": {}}


def vendors_document(version: str) -> Json | None:
    """The vendor's OpenAPI document of one version; None where it is not available, or does not exist."""
    file = DOCUMENTS / f"vb365-{version}.json"
    return json.loads(file.read_text()) if file.is_file() else None


def _as_json_schema(part: Any) -> Any:
    """OpenAPI 3.0 as JSON Schema: `nullable` becomes a further type, undocumented keys an error."""
    if isinstance(part, list):
        return [_as_json_schema(one) for one in part]
    if not isinstance(part, dict):
        return part
    schema = {key: _as_json_schema(value) for key, value in part.items()}
    if schema.pop("nullable", False):
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        schema.setdefault("additionalProperties", False)
    return schema


class Contract:
    """One version's operations: says what of a request or an answer is not as documented."""

    def __init__(self, document: Json) -> None:
        self.paths: Json = document["paths"]
        self._components = document["components"]
        self._schemas = {"components": _as_json_schema(document["components"])}

    def operation(self, method: str, path: str) -> Json:
        """What is documented for a method and a path, whose case does not matter."""
        found = []
        for template, methods in self.paths.items():
            pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
            if re.fullmatch(pattern, path, re.IGNORECASE) and method.lower() in methods:
                found.append((template.count("{"), methods[method.lower()]))
        assert found, f"{method} {path} is not documented"
        operation: Json = min(found, key=lambda one: one[0])[1]
        return operation

    def check_request(self, method: str, path: str, query: str, document: object, form: object) -> None:
        """Raises where a request is not as documented."""
        operation = self.operation(method, path)
        schemas = {one["name"]: one["schema"] for one in map(self._resolved, operation.get("parameters", []))}
        for name, text in parse_qsl(query, strict_parsing=bool(query)):
            if name not in schemas and (name == "limit" or (path, name, text) == _EXTENDED_VIEW):
                # The limit is sent to every collection: those that came without pages before v8 ignore it.
                continue
            assert name in schemas, f"{path} has no parameter {name}"
            self._validate(_read(text, schemas[name]), schemas[name])
        content: Json = operation.get("requestBody", {}).get("content", {})
        if form:
            schema = content["application/x-www-form-urlencoded"]["schema"]
            assert isinstance(form, tuple)
            assert set(form) <= set(schema["properties"])
            assert set(schema["required"]) <= set(form)
        elif "application/json" in content:
            self._validate(document, content["application/json"]["schema"])
        else:
            assert document is None, f"{method} {path} takes no body"

    def check_answer(self, method: str, path: str, status: int, body: object) -> None:
        """Raises where an answer is not as documented; a refusal may have any status."""
        responses = self.operation(method, path)["responses"]
        name = str(status) if status < 400 else "default"
        assert name in responses, f"{method} {path} never answers {status}"
        content = responses[name].get("content")
        if content:
            self._validate(body, next(iter(content.values()))["schema"])
        else:
            assert body is None

    def _resolved(self, parameter: Json) -> Json:
        if "$ref" not in parameter:
            return parameter
        resolved: Json = self._components["parameters"][parameter["$ref"].rpartition("/")[2]]
        return resolved

    def _validate(self, value: object, schema: Json) -> None:
        whole = self._schemas | _as_json_schema(schema)
        checker = jsonschema.FormatChecker()
        jsonschema.Draft202012Validator(whole, format_checker=checker).validate(value)


def _read(text: str, schema: Json) -> object:
    return json.loads(text) if schema["type"] in {"integer", "boolean"} else text
