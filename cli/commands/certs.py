"""`mcp certs`: the certificates of a node, their dates, and what keeps one from being renewed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("certs")
@click.argument("service", required=False)
@options.command
async def cli(settings: Settings, service: str | None) -> int:
    """List the certificates of all nodes, or of one service.

    RENEWED is when the next one is obtained. Where that failed, ERROR says why
    and RETRIED when it is tried again; the certificate serves until it EXPIRES.
    """
    from cli.connect import ask, failures, placed, services_of
    from cli.output import Output
    from cli.reports.parts import CertificatesReport, ServiceCertificate
    from cli.views import all_certificates_table, located

    output = Output(settings)
    if service is not None:
        settings = await placed(settings, service)
    answers = await ask(settings, lambda client: services_of(client, service))
    found = tuple(
        ServiceCertificate(node=one.node, service=one.name, certificate=certificate)
        for answer in answers
        for one in answer.value or ()
        for certificate in sorted(one.certificates, key=lambda certificate: certificate.hostname)
    )
    if found:
        table = all_certificates_table(found)
        output.table(located(table, (one.node for one in found)) if len(answers) > 1 else table)
    else:
        output.line("no certificates")
    unasked, status = failures(output, answers)
    output.document(CertificatesReport(certificates=found, unasked=unasked))
    return status
